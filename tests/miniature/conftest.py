"""The benchmark of colours, written once for each file of tests."""

from pathlib import Path

import pytest
from miniature_colours import write_colours


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("miniature"))
