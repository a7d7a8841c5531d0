"""One repository that is Hub code, pip package and tests: the rules that keep it so."""

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_imports

ROOT = Path(__file__).parent.parent.parent
HUB_FILES = sorted(ROOT.glob("*_plume.py"))


@pytest.mark.parametrize("file", HUB_FILES, ids=lambda file: file.name)
def test_hub_files_import_only_their_siblings_and_public_libraries(file):
    siblings = {f.stem for f in HUB_FILES}
    allowed = {"torch", "torchvision", "transformers", "huggingface_hub", "numpy", "PIL", "av"}
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


def test_a_wheel_holds_the_model_files_and_works_without_the_checkout(tmp_path, released_model_dir):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {f"plume_embed/model/{file.name}" for file in HUB_FILES} <= names
    assert "plume_embed/training/loss/losses.py" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"plume_embed"}
    program = (
        "import sys, torch, plume_embed, plume_embed.training.loss.losses;"
        "from plume_embed import PlumeModel, PlumeProcessor;"
        "model = PlumeModel.from_pretrained(sys.argv[1]).eval();"
        "processor = PlumeProcessor.from_pretrained(sys.argv[1]);"
        "print(sys.modules['plume_embed.model.modeling_plume'].__file__);"
        "print(tuple(model(**processor(['a text'])).embeddings.shape))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(released_model_dir)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    where, shape = done.stdout.strip().splitlines()
    assert Path(where) == tmp_path / "site" / "plume_embed" / "model" / "modeling_plume.py"
    assert shape == "(1, 64)"
