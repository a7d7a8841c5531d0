"""The repository of the Hub Space: complete, and running without the checkout."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from space.tools.bundle import bundle

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """
import os, runpy, sys
from pathlib import Path

def main():
    app = runpy.run_path(str(Path(sys.argv[1]) / "space" / "app.py"), run_name="bundled")
    folder = app["prepare_environment"]()
    service = app["make_service"](folder)
    service.corpora[0].collection.wait(120)
    page, address = app["launch"](service, prevent_thread_lock=True, quiet=True)
    import httpx, space.page.page as module
    print(module.__file__)
    collection = service.corpora[0].collection
    print(httpx.get(address).status_code, len(collection.items), collection.embedded)
    page.close(verbose=False)

if __name__ == "__main__":
    main()
"""


def test_the_bundle_runs_without_the_checkout(tmp_path):
    bundle(tmp_path / "made", ["somebody/plume-tiny"])
    assert "models:\n  - somebody/plume-tiny\ntags:" in (tmp_path / "made" / "README.md").read_text()
    (tmp_path / "made").rename(tmp_path / "repository")
    assert "*.safetensors filter=lfs" in (tmp_path / "repository" / ".gitattributes").read_text()
    assert not [file for file in (tmp_path / "repository").rglob("*") if file.is_symlink()]
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "repository")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    where, found = done.stdout.strip().splitlines()[-2:]
    assert Path(where) == tmp_path / "repository" / "space" / "page" / "page.py"
    assert found == "200 22 0", "the index is part of the bundle, also where it was moved to"
    with pytest.raises(ValueError, match="is not empty"):
        bundle(tmp_path / "repository")


def test_the_card_names_the_program_and_the_requirements_are_those_of_the_package():
    card = (ROOT / "space" / "README.md").read_text().split("---")[1]
    assert re.search(r"^sdk: gradio$", card, re.M)
    app_file = re.search(r"^app_file: (.+)$", card, re.M)[1]
    assert (ROOT / app_file).is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {*project["dependencies"], *project["optional-dependencies"]["space"]}
    pinned = dict(line.split("==") for line in (ROOT / "space" / "requirements.txt").read_text().split())
    assert sorted(pinned) == sorted(Requirement(one).name for one in wanted)
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement
