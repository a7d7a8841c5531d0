"""What is kept of an evaluation is of the code that made it; the fingerprint of an index has no code in it."""

import shutil
from pathlib import Path

import pytest

from plume_embed.encode.encoder import Encoder
from plume_embed.evaluation import embedders
from plume_embed.evaluation.code import digest_of_code
from plume_embed.evaluation.embedders import PlumeEmbedder, SentenceTransformerEmbedder
from plume_embed.evaluation.miniature import store
from plume_embed.evaluation.mmeb_v2 import run as mmeb_v2


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "inner").mkdir(parents=True)
    (folder / "one.py").write_text("1")
    (folder / "inner" / "two.py").write_text("2")
    return folder


def test_the_digest_is_of_the_sources_alone_wherever_they_lie(package: Path, tmp_path: Path):
    first = digest_of_code(package)
    (package / "notes.txt").write_text("no code")
    copy = shutil.copytree(package, tmp_path / "elsewhere" / "package")
    assert digest_of_code(copy) == first and digest_of_code(copy, copy / "one.py") != first
    found = {first}
    for change in (
        lambda folder: (folder / "inner" / "two.py").write_text("3"),
        lambda folder: (folder / "inner" / "two.py").rename(folder / "inner" / "three.py"),
        lambda folder: (folder / "inner" / "four.py").write_text(""),
    ):
        copy = shutil.copytree(copy, tmp_path / f"changed-{len(found)}" / "package")
        change(copy)
        found.add(digest_of_code(copy))
    assert len(found) == 4


def test_a_place_without_sources_is_refused(tmp_path: Path):
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "nowhere.py"):
        with pytest.raises(ValueError, match="holds no Python sources"):
            digest_of_code(place)


def test_the_code_of_vectors_and_of_scores_is_there():
    assert all(path.exists() for module in (embedders, store, mmeb_v2) for path in module._CODE)
    names = {path.name for path in (*embedders._CODE, *store._CODE, *mmeb_v2._CODE)}
    assert {"model", "encode", "embedders.py", "similarity.py", "metrics", "score.py"} <= names


def test_other_code_gives_a_model_another_fingerprint_in_an_evaluation_and_the_same_in_an_index(
    released_model_dir: Path, package: Path, monkeypatch
):
    def fingerprints() -> list[str]:
        encoder = Encoder(released_model_dir, device="cpu")
        peer = SentenceTransformerEmbedder(str(released_model_dir), "cpu", trust_remote_code=True)
        return [PlumeEmbedder(encoder).fingerprint, peer.fingerprint, encoder.fingerprint]

    before = fingerprints()
    assert fingerprints() == before
    monkeypatch.setattr(embedders, "_CODE", (package,))
    after = fingerprints()
    assert after[0] != before[0] and after[1] != before[1] and after[2] == before[2]
