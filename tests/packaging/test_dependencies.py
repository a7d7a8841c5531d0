"""What is imported is declared, what is declared is imported, no circle of imports, no crowded folder."""

import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.imports import PACKAGES as OUR_PACKAGES
from benchmarks.imports import Import, files_by_folder, foreign_imports, import_circle, unresolved_imports
from plume_embed.cli.extras import PACKAGES

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Which extras the code of a folder may count on; the longest that fits counts. Elsewhere: none.
ALLOWED = {
    "plume_embed": (),
    "plume_embed/local_datasets.py": ("train",),  # which is in both extras that read data sets
    "plume_embed/corpus/ray_engine.py": ("ray",),
    "plume_embed/corpus/tables.py": ("train",),  # data sets of `datasets`
    "plume_embed/encode/int8_weights.py": ("int8",),
    "plume_embed/model": ("photos",),
    "plume_embed/serve": ("serve",),
    "plume_embed/serve/ray.py": ("serve", "ray"),
    "plume_embed/training": ("train",),
    "plume_embed/training/data/rationalize.py": ("train", "rationales"),
    "plume_embed/evaluation": ("eval",),
    "plume_embed/evaluation/metrics": ("train",),  # `evaluate` is in both extras: pairs are scored by it
    "training": ("experiments",),
    "evaluation": ("experiments",),
    "benchmarks": ("experiments", "ray", "dev"),
    "docs": ("train", "eval", "dev"),
    "examples": (),
    "scripts": ("experiments", "dev"),
    "space": ("space",),
    "space/tools": ("space", "dev"),
    "tests": ("all",),
}
NOT_IMPORTED = {
    "timm": "transformers needs it for FastVLM's tower",
    "hatchling": "builds",
    "httptools": "uvicorn reads HTTP with it where it is there",
    "pyright": "a command",
    "pytest-xdist": "an option of pytest",
    "ruff": "a command",
    "uvloop": "uvicorn runs on it where it is there",
}
# Modules that no package of ours may ask for: fetched at run time, or there on a ZeroGPU machine alone.
FETCHED = {"efficientnet_lite_pytorch", "library_tests", "spaces"}
MORE_THAN_15_FILES = {
    ".": "the Hub copies these files, flat",
    "plume_embed/model": "the same under their import name",
    "plume_embed/cli": "one file a command",
}


def declared(extra: str | None) -> set[str]:
    """Packages of an extra with those that it includes, or of the core."""
    found: set[str] = set()
    for text in PROJECT["dependencies"] if extra is None else EXTRAS[extra]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name == "plume-embed":
            found |= set().union(*(declared(inner) for inner in requirement.extras))
        else:
            found.add(name)
    return found


def allowed_for(file: Path) -> set[str]:
    folder = max((folder for folder in ALLOWED if file.is_relative_to(folder)), key=len)
    return declared(None).union(*(declared(extra) for extra in ALLOWED[folder]))


@pytest.fixture(scope="module")
def imports() -> dict[str, list[Import]]:
    return foreign_imports()


@pytest.fixture(scope="module")
def packages(imports: dict[str, list[Import]]) -> dict[str, set[str]]:
    by_module = packages_distributions()
    return {
        module: {canonicalize_name(name) for name in by_module.get(module, [module])}
        for module in imports
        if module not in FETCHED
    }


def test_every_import_is_declared(imports, packages):
    undeclared = [
        f"{found.file}:{found.line}: {module}"
        for module, names in packages.items()
        for found in imports[module]
        if not names & allowed_for(found.file)
    ]
    assert undeclared == []


@pytest.mark.parametrize("extra", [None, *sorted(set(EXTRAS) - {"all"})])
def test_every_declared_package_is_imported(extra, imports, packages):
    if extra is None:
        folders = {"plume_embed"}
    else:
        folders = {folder for folder, extras in ALLOWED.items() if {extra, "all"} & set(extras)}
        folders |= {"training", "evaluation"} if extra in ("train", "eval") else set()
    used = set().union(
        *(
            names
            for module, names in packages.items()
            if any(found.file.is_relative_to(folder) for found in imports[module] for folder in folders)
        )
    )
    own = {
        canonicalize_name(Requirement(text).name)
        for text in (PROJECT["dependencies"] if extra is None else EXTRAS[extra])
    }
    assert own - used - set(NOT_IMPORTED) - {"plume-embed"} == set()


def test_a_missing_package_of_an_extra_is_known_to_the_command_line(imports, packages):
    core = declared(None)
    found = {
        module: next(iter(names))
        for module, names in packages.items()
        if not names & core
        and any(
            each.file.is_relative_to("plume_embed") and not each.file.is_relative_to("plume_embed/model")
            for each in imports[module]
        )
    }
    assert found == PACKAGES


def test_every_import_of_ours_leads_to_a_file():
    assert unresolved_imports() == []


def test_no_module_imports_itself_in_a_circle():
    assert import_circle() == []


def test_folders_hold_at_most_15_python_files():
    crowded = {folder for folder, count in files_by_folder().items() if count > 15}
    assert {folder for folder in crowded if not folder.startswith("tests")} <= set(MORE_THAN_15_FILES)


def test_no_package_path_is_changed_at_run_time():
    files = [file for folder in OUR_PACKAGES for file in (ROOT / folder).rglob("*.py") if file != Path(__file__)]
    assert [file for file in files if "__path__" in file.read_text()] == []
