"""How commands of modules end: what a caller can mend is one line, whichever module was started."""

import json
import re
from pathlib import Path

import pytest

from plume_embed.command import run_command
from plume_embed.evaluation import tradeoff
from plume_embed.evaluation.miniature import report as miniature_report
from plume_embed.evaluation.photos import report as photos_report
from training.plume_small import train as plume_small
from training.plume_tiny import collect

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "evaluation" / "results"


def ended(main, arguments: list[str], monkeypatch, capsys) -> str:
    monkeypatch.setattr("sys.argv", ["command", *arguments])
    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_what_the_caller_can_mend_ends_in_one_line_on_the_command_line(monkeypatch, capsys):
    def main(rows: str = "full") -> None:
        raise ValueError(f"No row {rows!r};\nthere are others.")

    assert ended(main, ["--rows", "half"], monkeypatch, capsys) == "No row 'half'; there are others.\n"


@pytest.mark.parametrize(
    ("main", "arguments", "line"),
    [
        (tradeoff.main, [str(RESULTS / "paradigms.json"), "x.svg"], "nothing to plot: no latency was measured"),
        (
            tradeoff.main,
            [str(RESULTS / "miniature.json"), "x.svg", "--of", "I-X"],
            "--of is mean or one of I-CLS, I-QA",
        ),
        (tradeoff.main, [str(RESULTS / "photographs.json"), "x.svg"], "photographs.json holds other results"),
        (miniature_report.main, ["nowhere.json"], "There is no file nowhere.json"),
        (photos_report.main, [str(RESULTS / "miniature.json")], "`plume-embed evaluate photos --json FILE` wrote"),
        (collect.main, ["nowhere", "--to", "x.json"], "nowhere has no results.json"),
        (plume_small.main, ["--chain", "none"], "--chain is one of "),
    ],
)
def test_modules_that_are_commands_name_what_was_wrong_in_one_line(main, arguments, line, monkeypatch, capsys):
    found = ended(main, arguments, monkeypatch, capsys)
    assert line in found and found.count("\n") == 1


def test_reports_of_a_damaged_file_name_it(tmp_path, monkeypatch, capsys):
    damaged = tmp_path / "results.json"
    damaged.write_text(json.dumps({"benchmark": "photos"})[:-3])
    assert "results.json is damaged" in ended(photos_report.main, [str(damaged)], monkeypatch, capsys)


def test_every_module_that_is_a_command_starts_that_way():
    files = [path for folder in ("plume_embed", "training", "evaluation") for path in (ROOT / folder).rglob("*.py")]
    started = {path for path in files if re.search(r"^    typer\.run\(", path.read_text(), re.MULTILINE)}
    assert started == set()
