"""What the repository's Python files import, read without running them."""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("plume_embed", "training", "evaluation", "benchmarks", "space", "docs", "examples", "scripts", "tests")


@dataclass(frozen=True)
class Import:
    """One import statement.

    Attributes:
        file: Relative to the repository.
        line: Of the statement.
        module: What is imported, in full.
        names: What `from module import ...` names; empty for `import module`.
        for_types: Whether it stands under `if TYPE_CHECKING`, so that nothing imports it when the module runs.
    """

    file: Path
    line: int
    module: str
    names: tuple[str, ...] = ()
    for_types: bool = False


def files_of(folder: str) -> list[Path]:
    """Python files below a folder, relative to the repository; links to the top-level model files among them."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.py"))


def imports_of(file: Path) -> Iterator[Import]:
    """The imports of a file, those inside functions and under TYPE_CHECKING too; relative ones made absolute."""
    tree = ast.parse((ROOT / file).read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and _is_type_checking(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, (), id(node) in for_types)
        elif isinstance(node, ast.ImportFrom):
            package = file.parent.parts[: len(file.parent.parts) - node.level + 1] if node.level else ()
            module = ".".join((*package, *filter(None, [node.module])))
            yield Import(file, node.lineno, module, tuple(alias.name for alias in node.names), id(node) in for_types)


def foreign_imports(folders: tuple[str, ...] = PACKAGES) -> dict[str, list[Import]]:
    """Top-level names of what is neither ours nor Python's, with every import of it."""
    found: dict[str, list[Import]] = defaultdict(list)
    for folder in folders:
        for file in files_of(folder):
            for imported in imports_of(file):
                top = imported.module.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in PACKAGES and not _is_beside(top, file):
                    found[top].append(imported)
    return dict(found)


def unresolved_imports() -> list[str]:
    """Imports of our own modules that lead to no file, as `file:line: module`."""
    names = {_module_name(file) for folder in PACKAGES for file in files_of(folder)}
    names |= set(PACKAGES)  # docs and tests have no __init__.py
    return [
        f"{imported.file}:{imported.line}: {imported.module}"
        for folder in PACKAGES
        for file in files_of(folder)
        for imported in imports_of(file)
        if imported.module.partition(".")[0] in PACKAGES and imported.module not in names
    ]


def import_graph() -> dict[str, set[str]]:
    """Our modules, and which of ours each imports, inside functions too; what only types need is left out."""
    names = {_module_name(file): file for folder in PACKAGES for file in files_of(folder)}
    graph: dict[str, set[str]] = {}
    for name, file in names.items():
        targets: set[str] = set()
        for imported in imports_of(file):
            if not imported.for_types:
                inner = [f"{imported.module}.{part}" for part in imported.names]
                targets |= {target for target in inner if target in names}
                if imported.module in names and not (inner and all(target in names for target in inner)):
                    targets.add(imported.module)
        graph[name] = targets - {name}
    return graph


def import_circle() -> list[str]:
    """Modules that import each other in a circle, the first found; empty if there is none."""
    try:
        TopologicalSorter(import_graph()).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def files_by_folder() -> dict[str, int]:
    """How many Python files each folder holds, `__init__.py` left out, most first."""
    counts: dict[str, int] = defaultdict(int)
    for folder in PACKAGES:
        for file in files_of(folder):
            counts[file.parent.as_posix()] += file.name != "__init__.py"
    counts["."] = len(list(ROOT.glob("*.py")))
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _module_name(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_beside(name: str, file: Path) -> bool:
    """Whether it is a module of tests/, whose folders pytest puts on the path."""
    folders = (ROOT / file.parent, ROOT / "tests")
    return file.parts[0] == "tests" and any(
        (folder / f"{name}.py").is_file() or (folder / name).is_dir() for folder in folders
    )


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"
