"""Build hook: puts the root files and the top-level packages under `plume_embed/` in real wheels only.

In a checkout and in an editable install `plume_embed/__init__.py` finds them one folder up instead.
"""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = ("training", "evaluation", "benchmarks")


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        files = sorted(root.glob("*_plume.py"))
        files += [file for name in PACKAGES for file in sorted((root / name).rglob("*")) if file.is_file()]
        files = [file for file in files if "__pycache__" not in file.parts]
        build_data["force_include"].update({str(f): f"plume_embed/{f.relative_to(root)}" for f in files})
