"""Build hook: the content of the top-level `*_plume.py` goes to `plume_embed/model/`, where a checkout has links.

The links themselves are excluded from wheels (see pyproject.toml): where a checkout was made without symbolic links
they are text files. An editable install uses the links.
"""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict) -> None:
        if version == "editable":
            return
        files = sorted(Path(self.root).glob("*_plume.py"))
        build_data["force_include"].update({str(file): f"plume_embed/model/{file.name}" for file in files})
