"""One repository that is Hub code, pip package and tests: the rules that keep it so."""

import ast
import sys
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_imports

ROOT = Path(__file__).parent.parent.parent
HUB_FILES = sorted(ROOT.glob("*_plume.py"))


@pytest.mark.parametrize("file", HUB_FILES, ids=lambda file: file.name)
def test_hub_files_import_only_their_siblings_and_public_libraries(file):
    siblings = {f.stem for f in HUB_FILES}
    allowed = {"torch", "torchvision", "transformers", "huggingface_hub", "safetensors", "numpy", "PIL", "av"}
    optional = {"pillow_heif", "rawpy"}  # where they stand in a `try`, the Hub's loader does not ask for them
    assert not optional & set(get_imports(file))
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1, f"line {node.lineno}"
            assert node.module in siblings, f"line {node.lineno}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            roots = {name.split(".")[0] for name in names}
            assert roots <= allowed | optional | sys.stdlib_module_names, f"line {node.lineno}: {roots}"


def test_the_root_holds_no_other_python_that_would_join_the_package():
    assert not (ROOT / "__init__.py").exists()
    assert not (ROOT / "conftest.py").exists()
    assert {file.name for file in ROOT.glob("*.py")} == {file.name for file in HUB_FILES} | {"hatch_build.py"}


def test_the_package_links_to_every_hub_file():
    links = {link.name: link for link in (ROOT / "plume_embed" / "model").glob("*_plume.py")}
    assert set(links) == {file.name for file in HUB_FILES}
    for name, link in links.items():
        assert link.is_symlink() and link.readlink() == Path("..", "..", name), f"ln -sfn ../../{name} {link}"
