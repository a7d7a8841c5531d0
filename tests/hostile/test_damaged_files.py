"""Damaged files of every kind, at every way in that reads files: each has a right vector or one reason, alone."""

from pathlib import Path

import numpy as np
import pytest
from damaged_files import MUTATIONS, damaged_files, good_files, picture
from index_data import rows_by_place
from limits import part_slow, within_limits

from plume_embed import Encoder
from plume_embed.encode.encoder import without_place
from plume_embed.index.listing import list_folder
from plume_embed.index.search import open_index
from plume_embed.index.update import update_index
from plume_embed.model.images_plume import IMAGE_SUFFIXES
from plume_embed.model.inputs_plume import ItemError
from plume_embed.model.videos_plume import VIDEO_SUFFIXES
from plume_embed.reading.read import Options, read_items
from space.content.uploads import RefusedError, read_upload
from space.settings import Limits

DAMAGED = [name for name, _ in damaged_files()]
MEDIA = [name for name in DAMAGED if Path(name).suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
NEIGHBOURS = {"good-1.txt": b"a boat on the lake", "good-2.png": good_files()["still.png"]}


@pytest.fixture(scope="module")
def encoder(released_model_dir: Path) -> Encoder:
    return Encoder(released_model_dir, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    for name, data in (*damaged_files(), *NEIGHBOURS.items()):
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def neighbours(encoder: Encoder) -> np.ndarray:
    return encoder.encode(["a boat on the lake", {"image": picture(7)}])


def item_of(path: Path) -> dict:
    return {"image" if path.suffix in IMAGE_SUFFIXES else "video": path}


def test_every_kind_that_is_read_is_damaged_in_every_way():
    assert len(DAMAGED) == len(set(DAMAGED)) > 350 and len(MEDIA) > 250
    assert {f"{mutation}-{name}" for mutation in MUTATIONS for name in good_files()} <= set(DAMAGED)


@pytest.mark.parametrize("name", part_slow(MEDIA, 6))
def test_a_damaged_file_does_not_touch_the_items_beside_it(name: str, encoder: Encoder, folder: Path, neighbours):
    item = item_of(folder / name)
    with within_limits(name):
        vectors, errors = encoder.encode_readable(["a boat on the lake", item, {"image": picture(7)}])
    np.testing.assert_allclose(vectors[[0, 2]], neighbours, atol=1e-5)
    if errors:
        assert errors.keys() == {1}
        assert name in errors[1] and "\n" not in errors[1] and "Traceback" not in errors[1] and len(errors[1]) < 500
        with pytest.raises(ItemError) as refused:
            encoder.processor(["a", item])
        assert str(refused.value).startswith("Item 1: ") and without_place(refused.value) == errors[1]
    else:
        assert np.isfinite(vectors[1]).all() and np.linalg.norm(vectors[1]) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(vectors[1], encoder.encode([item])[0], atol=1e-5)


def test_an_index_of_damaged_files_holds_what_can_be_read_and_names_the_rest(encoder, folder, tmp_path, neighbours):
    told = []
    with within_limits("a folder of damaged files", items=len(DAMAGED) // 10):
        report = update_index(folder, tmp_path / "db", encoder, on_unreadable=lambda *one: told.append(one))
    rows, unreadable = rows_by_place(tmp_path / "db"), {place.partition("#")[0] for place, _ in report.unreadable}
    listed = {path.name for path in folder.iterdir() if path.suffix != ".parquet"}  # which no index reads
    assert {name for name, _ in rows} | unreadable == listed
    assert len(told) == len(report.unreadable) and all("\n" not in reason and reason for _, reason in told)
    vectors = np.array([row["vector"] for row in rows.values()])
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows["good-1.txt", ""]["vector"], neighbours[0], atol=1e-5)
    np.testing.assert_allclose(rows["good-2.png", ""]["vector"], encoder.encode([folder / "good-2.png"])[0], atol=1e-5)
    assert update_index(folder, tmp_path / "db", encoder).embedded == 0
    hits = open_index(folder, tmp_path / "db", encoder).search(neighbours[0], top=1000)
    assert hits[0].path == "good-1.txt" and hits[0].score == pytest.approx(1, abs=1e-4)
    check_rows(rows, encoder, folder)


def check_rows(rows: dict, encoder: Encoder, folder: Path) -> None:
    """The vectors in the index are those of the items alone, each as it is read."""
    readable = {name for name, _ in rows}
    files = [file for file in list_folder(folder).files if file.path in readable]
    for file in files[::7]:
        items = [item for item in read_items(file, encoder.fits, Options.of(encoder.processor)) if item.content]
        for item, vector in zip(items, encoder.encode([item.content for item in items], batch_size=1), strict=True):
            np.testing.assert_allclose(rows[file.path, item.locator]["vector"], vector, atol=1e-5)


@pytest.mark.parametrize("name", part_slow(DAMAGED, 20))
def test_the_space_takes_an_upload_or_refuses_it_in_a_sentence(name: str, folder: Path):
    refusal, items = "", []
    with within_limits(name):
        try:
            wanted = ("image", "video", "page", "text")
            options = Options(4, 10**8)
            items = list(read_upload(folder / name, name, wanted, Limits(), options, lambda text: len(text) < 1000))
        except RefusedError as error:
            refusal = str(error)
    if refusal:
        assert refusal.startswith(f"“{name}” was refused: ") and refusal.endswith(".")
        assert str(folder) not in refusal and "\n" not in refusal
    else:
        assert items and all(item.content for item in items)
