"""transformers' own common tests, ConfigTester and ModelTesterMixin, on PlumeModel.

python -m scripts.transformers_tests                    # fetches the source distribution of the installed version
python -m scripts.transformers_tests --sources FOLDER   # one that is unpacked already

The tests are not in transformers' wheel. They need `pip install parameterized`. What does not apply stands in
`BY_DESIGN` with the reason; the script fails if another test fails, or if one of these passes.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import pytest
import transformers
import typer

CASES = Path(__file__).with_name("transformers_cases.py")
# Parts of the tests that the source distribution leaves out: mixins for exporters and generation, which PlumeModel, an
# encoder, would not inherit from, and values for configs of plain models.
STAND_INS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
}
# They look for transformers beside themselves; here it is the installed one.
_OWN_IMPORT = ("direct_transformers_import(Path(__file__).parent)", "__import__('transformers')")
_REFUSED = (
    "asks for hidden states or attentions of a decoder: refused by name, since a rollout has K + 2 passes of them"
)
_MISSING = "loads a model without its weights: refused by name, since the library would draw them"
BY_DESIGN = {
    "test_can_capture_specific_layers_hidden_states": _REFUSED,
    "test_capture_outputs_decorator": _REFUSED,
    "test_hidden_states_output": _REFUSED,
    "test_model_outputs_equivalence": _REFUSED,
    "test_retain_grad_hidden_states_attentions": _REFUSED,
    "test_can_init_all_missing_weights": _MISSING,
    "test_model_weights_reload_no_missing_tied_weights": _MISSING,
    "test_resize_tokens_embeddings": "cuts the anchor and start tokens off the vocabulary: such rows are refused",
    "test_training": "wants a loss in the output: losses stand outside the model, in plume_embed.training",
}


class Collector:
    """A pytest plugin: the outcome of each test."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.rpartition("::")[2]
        has_run = report.when == "call" or report.outcome != "passed"
        if has_run and self.outcomes.get(name) != "failed":  # one subtest that fails decides
            self.outcomes[name] = report.outcome
            if report.failed:
                self.reasons[name] = str(report.longrepr.reprcrash.message if report.longrepr else "").splitlines()[0]


def fetch(folder: Path) -> Path:
    """The unpacked source distribution of the installed version."""
    name = f"transformers=={transformers.__version__}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--no-binary", "transformers", "--dest", str(folder), name], check=True)
    (archive,) = folder.glob("transformers-*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def prepare(sources: Path, folder: Path) -> None:
    """A package `library_tests` of the common tests and of what they import."""
    package = folder / "library_tests"
    package.mkdir()
    for file in sources.glob("tests/test_*_common.py"):
        (package / file.name).write_text(file.read_text().replace(*_OWN_IMPORT))
    for name, content in STAND_INS.items():
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(content)
        (package / name).with_name("__init__.py").touch()
    (package / "__init__.py").touch()


def run(
    sources: Annotated[
        Path | None, typer.Option(help="Unpacked source distribution. Default: fetched with pip.")
    ] = None,
    only: Annotated[str, typer.Option(help="Of these tests alone, as in pytest -k.")] = "",
) -> None:
    """Runs the tests and prints what passed, what does not apply, and what failed."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    collector = Collector()
    with tempfile.TemporaryDirectory() as folder:
        prepare(sources or fetch(Path(folder)), Path(folder))
        sys.path.insert(0, folder)
        arguments = [str(CASES), "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-W", "ignore"]
        arguments += ["-c", os.devnull, "--rootdir", folder]
        pytest.main(arguments + (["-k", only] if only else []), plugins=[collector])
    counts = Counter(collector.outcomes.values())
    ran = counts["passed"] + counts["failed"]
    print(
        f"\ntransformers {transformers.__version__}: {counts['passed']} of {ran} tests pass, {counts['skipped']} skip"
    )
    failed = {name for name, outcome in collector.outcomes.items() if outcome == "failed"}
    for name in sorted(failed):
        print(f"  {name}: {BY_DESIGN.get(_family(name)) or 'FAILED, ' + collector.reasons[name]}")
    unexpected = {name for name in failed if _family(name) not in BY_DESIGN}
    passed = {_family(name) for name, outcome in collector.outcomes.items() if outcome == "passed"}
    stale = sorted(name for name in BY_DESIGN if name in passed and not any(_family(f) == name for f in failed))
    if stale:
        print(f"passes by now, take it out of BY_DESIGN: {', '.join(stale)}")
    raise typer.Exit(1 if unexpected or stale else 0)


def _family(name: str) -> str:
    """The name of a test without its parameters."""
    return name.partition("[")[0]


if __name__ == "__main__":
    typer.run(run)
