"""docs/design.md says which folder may import which: the code keeps to it, and there is no circle."""

import ast
import re
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "plume_embed"
ROW = re.compile(r"^\| `plume_embed/(\w+)/` \| .* \| (.*) \|$", re.MULTILINE)
OUTSIDE = ("training", "evaluation", "benchmarks", "space", "examples", "docs", "tests")
# They start the package or the command line, so they name what they start.
ENTRIES = ("__init__.py", "__main__.py")


def allowed() -> dict[str, set[str]]:
    """Folders that each folder may import, as the table says."""
    found: dict[str, set[str]] = {}
    for folder, cell in ROW.findall((ROOT / "docs" / "design.md").read_text()):
        found[folder] = set(found) if "every folder above" in cell else set(re.findall(r"\w+", cell))
    return found


def imports() -> dict[str, set[str]]:
    """What each folder imports of the rest, also within functions; "" is a single file at the package's top."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).parts
        if path.is_symlink() or (len(parts) == 1 and path.name in ENTRIES):
            continue
        own = parts[0] if len(parts) > 1 else ""
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                root, _, rest = name.partition(".")
                target = rest.partition(".")[0]
                if root == "plume_embed" and (PACKAGE / target).is_dir() and target not in ("", own):
                    found[own].add(target)
                elif root in OUTSIDE:
                    found[own].add(f"outside: {name}")
    return found


def test_the_table_has_every_folder_of_the_package():
    assert set(allowed()) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_folders_import_what_the_table_allows_and_nothing_outside_of_the_package():
    table = {**allowed(), "": set()}
    assert {folder: used - table[folder] for folder, used in imports().items() if used - table[folder]} == {}


def test_no_folder_imports_itself_by_way_of_others():
    assert list(TopologicalSorter(imports()).static_order())
