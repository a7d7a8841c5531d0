"""Offline, one thread, and the converted tiny model that many tests share."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start; a second thread only disturbs the first
os.environ.pop("PLUME_MODEL", None)

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

FIXTURES = Path(__file__).parent / "fixtures"
LONGEST = ("tests/space/test_space_browser.py", "tests/training/", "tests/release/")  # of those not slow


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: handed out last, one of them would have the other workers wait for its end."""

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(Path(__file__).parent.parent).as_posix()
        return next((index for index, start in enumerate(LONGEST) if name.startswith(start)), len(LONGEST))

    items.sort(key=place)


@pytest.fixture(scope="session")
def released_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted model of 300 thousand random weights, D = 64. Read only: all tests share it."""
    from plume_embed.hub.convert import convert_released

    out = tmp_path_factory.mktemp("models") / "released_tiny"
    return convert_released(FIXTURES / "released_layout_tiny" / "checkpoint", out)
