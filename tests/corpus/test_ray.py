"""The Ray engine on a cluster of this machine: the rows of the local engine, whoever dies."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_files import write_pdf, write_picture

from plume_embed.corpus.embed import EmbedOptions, EmbedReport, embed_corpus
from plume_embed.corpus.ray_engine import RayEngine, RayOptions
from plume_embed.corpus.sources import open_source
from plume_embed.encode.encoder import Encoder
from scripts.corpus_kills import kill_corpus, parquet_rows, rows_compared

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder(released_model_dir: Path) -> Encoder:
    return Encoder(released_model_dir, device="cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rows = [{"text": f"text {n} " * (1 + n % 4), "id": f"id {n}"} for n in range(40)]
    for number in range(0, 40, 5):
        write_picture(folder / f"{number}.png", seed=number)
        rows[number]["image"] = f"{number}.png"
    (folder / "broken.png").write_text("no picture")
    rows[3] = {"image": "broken.png", "id": "broken"}
    rows[6]["id"] = "id 1"  # bad before it is read, behind one of its shard that is bad when it is decoded
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "in.jsonl"


def embed(source: Path, out: Path, encoder: Encoder, workers: int = 0, **options) -> EmbedReport:
    engine = RayEngine(encoder.folder, RayOptions(workers, device="cpu")) if workers else None
    chosen = EmbedOptions(num_latent_steps=2, batch_size=4, shard_rows=8)
    return embed_corpus(open_source(str(source)), out, encoder, chosen, engine, **options)


def test_the_rows_are_those_of_the_local_engine_and_bad_ones_are_apart(source: Path, encoder: Encoder, tmp_path: Path):
    reports = [embed(source, tmp_path / f"{n}.parquet", encoder, workers=n) for n in (0, 2)]
    assert reports[0] == reports[1] and reports[0].num_bad == 2 and reports[0].num_rows == 38
    local, ray = (parquet_rows(tmp_path / f"{n}.parquet") for n in (0, 2))
    assert rows_compared(ray, local) == {"lost": 0, "doubled": 0, "largest_difference": pytest.approx(0, abs=1e-5)}
    bad = [pq.read_table(tmp_path / f"{n}.bad.parquet").to_pylist() for n in (0, 2)]
    assert bad[0] == bad[1] and [row["id"] for row in bad[0]] == ["broken", "id 1"]


def test_a_run_that_began_locally_ends_on_a_cluster(source: Path, encoder: Encoder, tmp_path: Path):
    def stop(done: int, total: int) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(source, tmp_path / "out.parquet", encoder, on_progress=stop)
    report = embed(source, tmp_path / "out.parquet", encoder, workers=1)
    assert report.resumed == 14 and report.num_rows == 38  # of the first 16 rows two are bad
    embed(source, tmp_path / "whole.parquet", encoder)
    found = rows_compared(*(parquet_rows(tmp_path / f"{name}.parquet") for name in ("out", "whole")))
    assert (found["lost"], found["doubled"]) == (0, 0) and found["largest_difference"] < 1e-5


def test_a_folder_is_decoded_by_tasks(encoder: Encoder, tmp_path: Path):
    folder = tmp_path / "media"
    folder.mkdir()
    write_picture(folder / "a.png")
    write_pdf(folder / "b.pdf", num_pages=2)
    (folder / "c.txt").write_text("a text")
    for name, workers in (("local", 0), ("ray", 1)):
        assert embed(folder, tmp_path / name, encoder, workers).num_rows == 4
    found = rows_compared(parquet_rows(tmp_path / "ray"), parquet_rows(tmp_path / "local"))
    assert (found["lost"], found["doubled"]) == (0, 0) and found["largest_difference"] < 1e-5


def test_a_cluster_that_is_too_small_is_refused_with_the_remedy(source: Path, encoder: Encoder, tmp_path: Path):
    engine = RayEngine(encoder.folder, RayOptions(1, gpus_per_worker=64.0))
    with pytest.raises(ValueError, match=r"need 2 CPUs and 64 GPUs, the cluster has .*: lower --workers"):
        embed_corpus(open_source(str(source)), tmp_path / "out.parquet", encoder, EmbedOptions(2), engine)


def test_what_keeps_a_worker_from_starting_is_the_error(source: Path, encoder: Encoder, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(encoder.folder, other)
    config = json.loads((other / "config.json").read_text()) | {"num_latent_steps": 3}
    (other / "config.json").write_text(json.dumps(config))
    engine = RayEngine(other, RayOptions(1, device="cpu"))
    with pytest.raises(ValueError, match="holds another model") as error:
        embed_corpus(open_source(str(source)), tmp_path / "out.parquet", encoder, EmbedOptions(2), engine)
    assert str(error.value).startswith(f"{other} holds another model on one of the nodes, or a setting of ")


def test_twenty_kills_of_workers_and_of_the_driver_lose_and_double_nothing(released_model_dir: Path, tmp_path: Path):
    found = kill_corpus(tmp_path, released_model_dir, kills=20, rows=400)
    assert found["kills"] == 20 and found["of_workers"] and found["of_drivers"]
    assert (found["lost"], found["doubled"]) == (0, 0) and found["largest_difference"] < 1e-5
    assert len(found["shards_there"]) == 20 and max(found["shards_there"]) > 0
