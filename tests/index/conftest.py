"""A small folder and an encoder that counts, for the tests of what an update does."""

from pathlib import Path

import pytest
from index_data import CountingEncoder, age, write_texts
from small_files import write_picture

from plume_embed.index import listing


@pytest.fixture(scope="module")
def shared_encoder(released_model_dir: Path) -> CountingEncoder:
    return CountingEncoder(released_model_dir)


@pytest.fixture
def encoder(shared_encoder: CountingEncoder) -> CountingEncoder:
    shared_encoder.embedded.clear()
    return shared_encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_texts(tmp_path / "folder")
    write_picture(folder / "sub" / "noise.png")
    age(folder)
    return folder


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files that were read for their hash."""
    paths: list[str] = []
    digest = listing.hashlib.file_digest

    def noted(file, name):
        paths.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(listing.hashlib, "file_digest", noted)
    return paths
