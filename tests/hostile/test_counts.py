"""docs/reliability.md counts what the generators make."""

from pathlib import Path

from damaged_files import damaged_files
from odd_inputs import odd_inputs
from test_tables import LINES, PAIRS

PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"


def test_the_page_has_the_counts_of_the_generators():
    files, inputs, rows = len(list(damaged_files())), len(odd_inputs()), len(LINES) + len(PAIRS)
    assert files + inputs + rows >= 400
    assert f"{files} damaged files, {inputs} odd inputs and {rows} odd lines and pairs" in PAGE.read_text()
