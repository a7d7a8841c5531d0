"""A wheel stands alone: what is in it, and every command of it where nothing but the core dependencies is installed."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks.bare import BareEnvironment, Outcome, build, wheel_names
from plume_embed import __version__
from plume_embed.cli.extras import PACKAGES
from plume_embed.cli.main import command_names

ROOT = Path(__file__).parent.parent.parent
CHECKPOINT = Path(__file__).parent.parent / "fixtures" / "released_layout_tiny" / "checkpoint"
DATA_FILES = {
    "plume_embed/evaluation/mmeb_v2/tasks.json",
    "plume_embed/evaluation/mmeb_v2/video_labels.json",
    "plume_embed/py.typed",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> BareEnvironment:
    return BareEnvironment(tmp_path_factory.mktemp("bare"), wheel)


def test_a_wheel_holds_the_package_and_no_results(wheel: Path):
    names = [name for name in wheel_names(wheel) if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in names} == {"plume_embed"}
    assert {f"plume_embed/model/{file.name}" for file in ROOT.glob("*_plume.py")} <= set(names)
    others = {name for name in names if not name.endswith(".py")}
    recipes = {name for name in others if re.fullmatch(r"plume_embed/training/recipes/\w+\.yaml", name)}
    assert recipes and others - recipes == DATA_FILES
    experiments = re.compile(r"results|hops|ablation|plume_tiny|plume_small|/test")
    assert [name for name in names if experiments.search(name)] == []
    assert wheel.stat().st_size < 1_000_000


def test_every_command_answers_in_a_bare_environment(bare: BareEnvironment):
    """With --help, and with a call that does something or says in one line what is missing."""
    # What core dependencies need themselves is there; the rest of the extras is not.
    assert {module for module in PACKAGES if bare.has(module)} <= {"httpx", "pydantic", "tokenizers", "yaml"}
    assert bare.command("--version").out == f"{__version__}\n"
    typo = bare.command("serch")
    assert typo.code == 2 and typo.err.count("\n") == 1
    names = command_names()
    for name, outcome in zip(names, bare.commands([[*name, "--help"] for name in names]), strict=True):
        assert outcome.code == 0 and "--help" in outcome.out, (name, outcome)


def test_every_command_works_in_a_bare_environment_or_names_the_extra(
    bare: BareEnvironment, tmp_path: Path, released_model_dir: Path
):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "whale.txt").write_text("The blue whale is the largest animal.")
    (tmp_path / "rows.jsonl").write_text('{"text": "a row"}\n')
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"query": "a whale", "positive": "the largest animal"}\n')
    run = tmp_path / "run"
    run.mkdir()
    model = ["--model", str(released_model_dir)]
    works = {
        "search": ["search", str(folder), "a whale", *model],
        "index": ["index", str(folder), "--to", str(tmp_path / "db"), *model],
        "embed": ["embed", str(tmp_path / "rows.jsonl"), "--to", str(tmp_path / "out.parquet"), *model],
        "convert": ["convert", str(CHECKPOINT), str(tmp_path / "converted")],
        "init": ["init", str(CHECKPOINT), str(tmp_path / "fresh")],
        "export": ["export", str(tmp_path / "exported"), *model],
        "mine": ["mine", str(pairs), "--corpus", str(folder), "--out", str(tmp_path / "mined.jsonl"), *model],
        "bench adapter": ["bench", "adapter", "--batches", "1"],
    }
    says_why = {  # all of their imports, then an input that does not exist
        "bench encode": (["bench", "encode", "--batches", "0", *model], "--batches takes whole numbers"),
        "bench rollout": (["bench", "rollout", "--shape", "7b"], "--shape must be one of"),
        "evaluate photos": (["evaluate", "photos", "--data", str(tmp_path / "none")], "make photos"),
    }
    needs = {
        "train": (["train", "paper_2b", "--dry-run", "--set", f"output_dir={tmp_path / 'out'}"], "accelerate", "train"),
        "report": (["report", str(run)], "matplotlib", "train"),
        "rationalize": (
            [
                "rationalize",
                str(pairs),
                "--endpoint",
                "http://127.0.0.1:9/v1",
                "--model",
                "x",
                "--out",
                str(tmp_path / "x.jsonl"),
            ],
            "openai",
            "rationales",
        ),
        "serve": (["serve", *model], "fastapi", "serve"),
        "evaluate miniature": (["evaluate", "miniature", *model], "datasets", "eval"),
        "evaluate pairs": (["evaluate", "pairs", str(pairs), *model], "evaluate", "train"),
        "evaluate mmeb-v2": (["evaluate", "mmeb-v2", "--check", "--media-dir", str(tmp_path)], "datasets", "eval"),
    }
    groups = {"bench", "evaluate"}
    assert {*works, *says_why, *needs} == {" ".join(name) for name in command_names()} - groups
    calls = {**works, **{name: call[0] for name, call in {**says_why, **needs}.items()}}
    outcomes = dict(zip(calls, bare.commands(list(calls.values())), strict=True))
    for name in works:
        assert outcomes[name].code == 0 and outcomes[name].out, (name, outcomes[name])
    assert "whale.txt" in outcomes["search"].out
    for name, (_, reason) in says_why.items():
        assert_one_line(outcomes[name], reason)
    for name, (_, package, extra) in needs.items():
        line = f'plume-embed: This command needs {package}: pip install "plume-embed[{extra}]"\n'
        assert (outcomes[name].code, outcomes[name].err) == (2, line), name


def assert_one_line(outcome: Outcome, reason: str) -> None:
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and reason in outcome.err, outcome


@pytest.fixture(scope="module")
def without_links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked sdist whose links became text files, as on a system or in an archive that has none."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", folder)) as archive:
        archive.extractall(folder, filter="tar")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    links = [path for path in source.rglob("*") if path.is_symlink()]
    assert {link.name for link in links} == {file.name for file in ROOT.glob("*_plume.py")}
    for link in links:
        target = os.readlink(link)
        link.unlink()
        link.write_text(target)
    return source


def test_a_checkout_without_links_builds_the_same_wheel(without_links: Path, wheel: Path, tmp_path: Path):
    def content(file: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist() if name.startswith("plume_embed/")}

    assert content(build("wheel", tmp_path, without_links)) == content(wheel)


def test_a_checkout_without_links_says_the_remedy_when_imported(without_links: Path, tmp_path: Path):
    command = [sys.executable, "-c", "from plume_embed import PlumeConfig"]
    environment = {**os.environ, "PYTHONPATH": str(without_links)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "git config core.symlinks true" in done.stderr and "pip install ." in done.stderr
