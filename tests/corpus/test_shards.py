"""Shards: functions of their slices, published whole, made once however often their makers are killed."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from plume_embed import atomic
from plume_embed.corpus import embed as embed_module
from plume_embed.corpus import leases
from plume_embed.corpus.embed import EmbedOptions, embed_corpus
from plume_embed.corpus.leases import Leases
from plume_embed.corpus.output import BAD_FILE, bad_file
from plume_embed.corpus.plan import MadeBy, make_plan
from plume_embed.corpus.sources import open_source
from plume_embed.encode.encoder import Encoder

ROWS = 60


@pytest.fixture(scope="module")
def encoder(released_model_dir: Path) -> Encoder:
    return Encoder(released_model_dir, device="cpu")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    lines = [json.dumps({"text": f"text {n} " * (1 + n % 4), "id": f"id {n}"}) for n in range(ROWS)]
    lines[7] = "{broken"
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "in.jsonl"


def embed(source: Path, out: Path, encoder: Encoder, **options):
    chosen = EmbedOptions(num_latent_steps=2, batch_size=2, shard_rows=4)
    return embed_corpus(open_source(str(source)), out, encoder, chosen, **options)


def killed(source: Path, out: Path, encoder: Encoder, seconds: float) -> None:
    """A process of its own embeds, and is killed some time after its first new shard."""
    shards = out.with_name(f"{out.name}.partial") / "shards"
    before = len(list(shards.glob("0*"))) if shards.is_dir() else 0
    pid = os.fork()
    if pid == 0:
        try:
            embed(source, out, encoder)
        finally:
            os._exit(0)
    while len(list(shards.glob("0*"))) <= before:
        time.sleep(0.005)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_run_that_is_killed_again_and_again_gives_every_row_once(source: Path, encoder: Encoder, tmp_path: Path):
    rng = random.Random(0)
    for _ in range(3):
        killed(source, tmp_path / "out.parquet", encoder, rng.uniform(0, 0.05))
    shards = tmp_path / "out.parquet.partial" / "shards"
    left = {path.name: path.stat().st_mtime_ns for path in shards.glob("0*")}
    stayed: dict[str, int] = {}

    def look(done: int, total: int) -> None:
        stayed.update({path.name: path.stat().st_mtime_ns for path in shards.glob("0*") if path.name in left})

    report = embed(source, tmp_path / "out.parquet", encoder, on_progress=look)
    assert stayed == left and len(left) >= 3  # none is made twice
    assert report.resumed == sum(4 - (name.startswith("00000001")) for name in left)
    assert (report.num_rows, report.num_bad) == (ROWS - 1, 1)
    embed(source, tmp_path / "whole.parquet", encoder)
    one, other = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("out", "whole"))
    assert one.equals(other)  # to the bit: a shard is a function of its slice
    assert not (tmp_path / "out.parquet.partial").exists()


@pytest.mark.parametrize(
    ("moment", "out_name"), [("bad rows", "out.lance"), ("joined", "out.parquet"), ("published", "out")]
)
def test_a_kill_behind_the_last_shard_leaves_nothing_over(
    moment: str, out_name: str, source: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, writes = tmp_path / "to" / out_name, 0
    out.parent.mkdir()

    def end(*_) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def end_at_a_write(path: Path) -> None:
        nonlocal writes
        writes += len(list((out.with_name(f"{out.name}.partial") / "shards").glob("0*"))) == ROWS // 4
        if writes == ("bad rows", "joined").index(moment) + 1:
            end()

    pid = os.fork()
    if pid == 0:
        try:
            if moment == "published":
                monkeypatch.setattr(embed_module, "_empty", end)
            else:
                monkeypatch.setattr(atomic, "to_disk", end_at_a_write)
            embed(source, out, encoder)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert embed(source, out, encoder).num_rows == ROWS - 1
    assert {path.name for path in out.parent.iterdir()} == {out.name, bad_file(out).name} - {BAD_FILE}


def test_a_shard_has_another_name_where_anything_that_decides_it_is_another(source: Path, tmp_path: Path):
    made_by = MadeBy("fingerprint", 2)

    def names(keep=(), made_by: MadeBy = made_by) -> list[str]:
        return [one.name for one in make_plan(open_source(str(source), keep), made_by, 4, tmp_path / "plan").slices()]

    plain = names()
    assert plain == names() and len(set(plain)) == ROWS // 4
    others = [{"fingerprint": "x"}, {"num_latent_steps": 3}, {"dimensions": 8}, {"instruction": "Find."}]
    for other in others:
        assert not set(names(made_by=replace(made_by, **other))) & set(plain)
    lines = source.read_text().splitlines()
    source.write_text("\n".join([*lines[:10], json.dumps({"text": "new"}), *lines[11:]]) + "\n")
    assert [one == other for one, other in zip(names(), plain, strict=True)] == [n != 2 for n in range(ROWS // 4)]


def test_a_lease_is_kept_by_the_living_and_taken_from_the_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mine = Leases(tmp_path)
    assert mine.claim("a") and mine.claim("a")
    pid = os.fork()
    if pid == 0:  # another living process gets none of it, and dies with one of its own
        os._exit(int(Leases(tmp_path).claim("a")) + 2 * int(Leases(tmp_path).claim("b")))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert mine.claim("b")
    (tmp_path / "c").write_text(json.dumps({"host": "another", "pid": 1, "started": "1"}))
    assert not mine.claim("c")
    monkeypatch.setattr(leases, "LEASE_SECONDS", -1.0)  # without a sign of life for too long
    assert mine.claim("c")
    mine.close()
    assert not list(tmp_path.iterdir())


def test_a_shard_that_another_worker_is_at_is_waited_for(source: Path, encoder: Encoder, tmp_path: Path):
    embed(source, tmp_path / "whole.parquet", encoder)
    held: list[Leases] = []

    def hold(done: int, total: int) -> None:
        """Another run has the lease of the last shard until all others are there."""
        work = tmp_path / "out.parquet.partial"
        if not held:
            held.append(Leases(work / "leases"))
            held[0]._me = json.dumps({"host": "another", "pid": 1, "started": "1"})
            last = (work / "plan.jsonl").read_text().splitlines()[-1]
            assert held[0].claim(f"{ROWS // 4 - 1:08d}-{json.loads(last)[3]}.parquet")
        elif done == total - 4:
            held[0].close()

    embed(source, tmp_path / "out.parquet", encoder, on_progress=hold)
    assert pq.read_table(tmp_path / "out.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))


def test_vectors_are_those_of_the_encoder(source: Path, encoder: Encoder, tmp_path: Path):
    embed(source, tmp_path / "out.parquet", encoder)
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    texts = [f"text {n} " * (1 + n % 4) for n in range(ROWS) if n != 7]
    expected = encoder.encode(texts, num_latent_steps=2)
    np.testing.assert_allclose(np.array([row["embedding"] for row in table]), expected, atol=1e-5)
