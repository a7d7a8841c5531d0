"""One model and one server for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from serve_thread import running
from small_files import write_video

from plume_embed.encode.encoder import Encoder


@pytest.fixture(scope="session")
def encoder(released_model_dir) -> Encoder:
    return Encoder(released_model_dir)


@pytest.fixture(scope="session")
def server(encoder) -> Iterator[str]:
    with running(encoder, name="plume") as address:
        yield address


@pytest.fixture(scope="session")
def small_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("films") / "film.mp4")
