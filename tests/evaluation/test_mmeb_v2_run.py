"""Facts about a run: what it writes, what it survives, how it goes on, how processes share it."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from mmeb_v2_data import FIXTURES, task_named, write_frames, write_picture, write_table

from plume_embed.atomic import partial_beside
from plume_embed.cli.main import main
from plume_embed.evaluation.distributed import Ranks
from plume_embed.evaluation.embedders import InputError, PlumeEmbedder, SentenceTransformerEmbedder, latent_steps_of
from plume_embed.evaluation.mmeb_v2 import embeddings, report
from plume_embed.evaluation.mmeb_v2 import run as mmeb_v2_run
from plume_embed.evaluation.mmeb_v2.check import check_tasks
from plume_embed.evaluation.mmeb_v2.run import Settings, evaluate, stamp_of
from plume_embed.evaluation.mmeb_v2.tasks import load_tasks
from plume_embed.model.media_plume import load_image

ROOT = Path(__file__).parent.parent.parent
MEDIA = FIXTURES / "data_basedir"
IMAGES = "ziyjiang/MMEB_Test_Instruct"
NAMES = ("ImageNet-1K", "OK-VQA", "HMDB51", "ViDoRe_docvqa")


class HashEmbedder:
    """Vectors from the content alone; counts its work, and stops after `until` calls."""

    name, num_latent_steps, paradigm, written = "hashes", 4, "latent", None

    def __init__(self, fingerprint: str = "f" * 64, until: int | None = None) -> None:
        self.fingerprint, self.until, self.embedded, self.calls = fingerprint, until, 0, 0

    @property
    def documents(self):
        return self

    def embed(self, inputs: Sequence[dict], batch_size: int) -> np.ndarray:
        self.calls += 1
        if self.until is not None and self.calls > self.until:
            raise KeyboardInterrupt
        vectors = []
        for index, item in enumerate(inputs):
            digest = hashlib.sha256(item.get("text", "").encode())
            try:
                for path in [*([item["image"]] if "image" in item else []), *item.get("video", [])]:
                    digest.update(load_image(path).tobytes())
            except ValueError as error:
                raise InputError(index, str(error)) from error
            vectors.append(np.random.default_rng(int.from_bytes(digest.digest()[:8])).normal(size=16))
        self.embedded += len(inputs)
        array = np.array(vectors, np.float32)
        return array / np.linalg.norm(array, axis=1, keepdims=True)


class Benchmark:
    """Four small tasks, one of each kind that fails in its own way, with mirror and media."""

    def __init__(self, root: Path) -> None:
        self.root, self.hub, self.media, self.out = root, root / "hub", root / "media", root / "out"
        for name in NAMES[:2]:
            rows = [self.image_row(name, number) for number in range(5)]
            write_table(self.hub, IMAGES, name, "test", rows)
            for number in range(5):
                write_picture(self.media / f"image-tasks/MMEB/{name}/{number}.jpg", number)
        write_table(self.hub, "VLM2Vec/HMDB51", None, "test", [{"video_id": v, "pos_text": "wave"} for v in "ab"])
        for video in "ab":
            write_frames(self.media / f"video-tasks/frames/video_cls/HMDB51/{video}", 2, ord(video))
        self.write_documents([{"query-id": n, "corpus-id": n, "score": n % 2 + 1} for n in range(3)])
        for number in range(3):
            write_picture(self.media / f"visdoc-tasks/ViDoRe_docvqa/{number}.png", number)

    @staticmethod
    def image_row(name: str, number: int, candidates: Sequence[str] = ("cat", "dog", "cow")) -> dict:
        row = {"qry_inst": "<|image_1|>\nName it", "qry_text": f"{number}", "qry_img_path": f"{name}/{number}.jpg"}
        return row | {"tgt_text": list(candidates)}

    def write_documents(self, qrels: list[dict]) -> None:
        hub_id = "vidore/docvqa_test_subsampled_beir"
        write_table(self.hub, hub_id, "queries", "test", [{"query-id": n, "query": f"page {n}"} for n in range(3)])
        write_table(self.hub, hub_id, "qrels", "test", qrels)
        nothing = {"bytes": b"", "path": ""}
        write_table(self.hub, hub_id, "corpus", "test", [{"corpus-id": n, "image": nothing} for n in range(3)])

    def settings(self, **changes) -> Settings:
        values = {"variant": "fixed", "media_dir": self.media, "out": self.out, "hub_dir": self.hub, "batch_size": 2}
        return Settings(**(values | {"cache_dir": self.root / "cache"} | changes))

    def run(self, embedder=None, names: Sequence[str] = NAMES, **changes) -> list:
        tasks = [task_named(name) for name in names]
        embedder = None if "embeddings_dir" in changes else embedder or HashEmbedder()
        return evaluate(tasks, self.settings(**changes), embedder, Ranks())


@pytest.fixture
def benchmark_dir(tmp_path) -> Benchmark:
    return Benchmark(tmp_path)


def scores_in(out: Path) -> dict[str, dict]:
    found = {file.name: json.loads(file.read_text()) for file in sorted(out.glob("*/*_score.json"))}
    return {name: {k: v for k, v in scores.items() if k != "ms_per_item"} for name, scores in found.items()}


def test_scores_lie_where_the_public_report_scripts_look_and_say_what_they_are(benchmark_dir):
    outcomes = benchmark_dir.run()
    assert [outcome.failure for outcome in outcomes] == [None] * 4
    for name, folder in zip(NAMES, ("image", "image", "video", "visdoc"), strict=True):
        found = json.loads((benchmark_dir.out / folder / f"{name}_gen_gen_score.json").read_text())
        assert 0 <= found["hit@1"] <= found["hit@10"] <= 1
        assert (found["benchmark_version"], found["model"], found["num_latent_steps"]) == ("fixed", "hashes", 4)
        lines = (benchmark_dir.out / folder / f"{name}_gen_gen_pred.jsonl").read_text().splitlines()
        assert len(lines) == found["num_pred"]
        assert set(json.loads(lines[0])) == {"prediction", "label", "rel_scores"}


def break_image(b: Benchmark) -> tuple[str, str]:
    (b.media / "image-tasks/MMEB/OK-VQA/3.jpg").write_bytes(b"no picture")
    return "OK-VQA", "query 3: Cannot read .*3.jpg as an image"


def break_frames(b: Benchmark) -> tuple[str, str]:
    shutil.rmtree(b.media / "video-tasks/frames/video_cls/HMDB51/b")
    return "HMDB51", "no frame folder b below video-tasks/frames/video_cls/HMDB51"


def break_candidates(b: Benchmark) -> tuple[str, str]:
    rows = [b.image_row("OK-VQA", 0), b.image_row("OK-VQA", 1, ())]
    write_table(b.hub, IMAGES, "OK-VQA", "test", rows)
    return "OK-VQA", "row 1 has no candidates"


def break_positives(b: Benchmark) -> tuple[str, str]:
    b.write_documents([{"query-id": n, "corpus-id": n, "score": int(n != 1)} for n in range(3)])
    return "ViDoRe_docvqa", "query 1 has no page with a positive score"


def break_parquet(b: Benchmark) -> tuple[str, str]:
    (b.hub / IMAGES / "OK-VQA/test-00000-of-00001.parquet").write_bytes(b"PAR1 cut off")
    return "OK-VQA", "cannot read the rows of ziyjiang/MMEB_Test_Instruct"


@pytest.mark.parametrize("broken", [break_image, break_frames, break_candidates, break_positives, break_parquet])
def test_a_broken_task_is_named_with_its_reason_and_the_others_go_on(benchmark_dir, broken):
    name, reason = broken(benchmark_dir)
    outcomes = {outcome.task.name: outcome for outcome in benchmark_dir.run()}
    assert re.search(reason, outcomes[name].failure)
    assert all((outcome.failure is None) == (other != name) for other, outcome in outcomes.items())
    stamp = stamp_of(benchmark_dir.settings(), HashEmbedder())
    column = report.run_column(list(outcomes.values()), stamp)
    lines = report.notes(list(outcomes.values()), column)
    assert lines[0].startswith(f"FAILED {name}: ")
    assert lines[1].startswith("Incomplete averages, not computed: ") and "All 78 (3 of 78)" in lines[1]


def test_a_nan_embedding_stops_its_task_alone(benchmark_dir):
    class Broken(HashEmbedder):
        def embed(self, inputs, batch_size):
            vectors = super().embed(inputs, batch_size)
            vectors[[item.get("text", "").endswith("page 1") for item in inputs]] = np.nan
            return vectors

    outcomes = benchmark_dir.run(Broken())
    assert [outcome.failure for outcome in outcomes] == [None] * 3 + ["query 1: its embedding is NaN or infinite"]


def test_a_failed_task_leaves_no_score_of_an_earlier_run(benchmark_dir):
    benchmark_dir.run(names=["OK-VQA"])
    files = [benchmark_dir.out / f"image/OK-VQA_gen_gen_{name}" for name in ("score.json", "pred.jsonl")]
    assert all(file.is_file() for file in files)
    break_image(benchmark_dir)
    benchmark_dir.run(names=["OK-VQA"])
    assert not any(file.exists() for file in files)


def test_no_average_is_taken_over_fewer_tasks():
    tasks = load_tasks()
    most = report.Column("m", "fixed", {task.name: 50.0 for task in tasks[1:]})
    averages = {name: report.average(most, members) for name, members in report.groups().items()}
    incomplete = {name for name, mean in averages.items() if mean.value is None}
    assert incomplete == {"I-CLS", "Image", "All 78", report.SAME_IN_ALL_VERSIONS}
    assert averages["Video"].value == 50.0 and str(averages["I-CLS"]) == "(9/10)"
    assert report.average(report.Column("m", "fixed", {t.name: 50.0 for t in tasks}), tasks).value == 50.0


def test_averages_are_flat_over_tasks_and_not_over_groups():
    scores = {task.name: 100.0 if task.meta_task == "V-MRET" else 0.0 for task in load_tasks()}
    column = report.Column("m", "fixed", scores)
    assert report.average(column, report.groups()["Video"]).value == pytest.approx(100 * 3 / 18)


def test_every_column_of_the_table_names_its_benchmark_version(benchmark_dir):
    outcomes = benchmark_dir.run(names=NAMES[:1])
    column = report.run_column(outcomes, stamp_of(benchmark_dir.settings(), HashEmbedder()))
    head = report.summary_markdown(column, []).splitlines()[4]
    titles = [title.strip() for title in head.strip("| ").split("|")]
    assert titles[0] == "hashes [fixed]" and "PLUME [paper]" in titles and len(titles) == 9
    assert all(title.endswith(("[fixed]", "[original]", "[paper]")) for title in titles)


@pytest.mark.parametrize("changes", [{"variant": "original"}, {"embedder": HashEmbedder("0" * 64)}])
def test_scores_of_two_versions_or_models_never_share_a_folder(benchmark_dir, changes):
    benchmark_dir.run(names=NAMES[:1])
    with pytest.raises(ValueError, match=r"ImageNet-1K_gen_gen_score.json is of another run \(.*give this run another"):
        benchmark_dir.run(names=NAMES[1:2], **changes)


def test_scores_of_other_code_and_of_before_it_was_noted_are_taken_into_no_summary(benchmark_dir, monkeypatch):
    benchmark_dir.run(names=NAMES[:1])
    with monkeypatch.context() as patch:
        patch.setattr(mmeb_v2_run, "_CODE", (Path(__file__),))
        with pytest.raises(ValueError, match=r"is of another run \(code '\w+'\); give .* An update of the package"):
            benchmark_dir.run(names=NAMES[1:2])
    (file,) = benchmark_dir.out.glob("*/*_score.json")
    older = json.loads(file.read_text())
    del older["code"]
    file.write_text(json.dumps(older))
    with pytest.raises(ValueError, match=r"is of another run \(code None\); give this run another --out"):
        benchmark_dir.run(names=NAMES[1:2])


def test_stored_embeddings_of_two_folders_of_one_name_never_share_a_folder(benchmark_dir):
    benchmark_dir.run()
    (stored,) = (benchmark_dir.out / "embeddings").iterdir()
    again = {"out": benchmark_dir.root / "again", "media_dir": None}
    for folder in ("one", "two"):
        shutil.copytree(stored, benchmark_dir.root / folder / "embeddings")
    benchmark_dir.run(embeddings_dir=benchmark_dir.root / "one" / "embeddings", **again)
    with pytest.raises(ValueError, match=r"is of another run \(model_fingerprint '.*/one/embeddings'\)"):
        benchmark_dir.run(embeddings_dir=benchmark_dir.root / "two" / "embeddings", **again)


def test_the_summary_is_of_all_tasks_that_the_folder_has_scores_of(benchmark_dir, released_model_dir):
    def score(*names: str) -> dict:
        where = ["--hub-dir", benchmark_dir.hub, "--media-dir", benchmark_dir.media, "--out", benchmark_dir.out]
        with pytest.raises(SystemExit) as end:
            main(["evaluate", "mmeb-v2", "--model", released_model_dir, "--tasks", ",".join(names), *map(str, where)])
        assert end.value.code == (1 if "HMDB51" in names else 0)
        return json.loads((benchmark_dir.out / "summary.json").read_text())

    first = score("ImageNet-1K")
    second = score("ViDoRe_docvqa")
    assert list(second["scores"]) == ["ImageNet-1K", "ViDoRe_docvqa"]
    assert second["scores"]["ImageNet-1K"] == first["scores"]["ImageNet-1K"]
    assert second["incomplete"]["All 78"] == {"have": 2, "of": 78}
    assert score("ImageNet-1K")["scores"] == second["scores"]
    assert "| ViDoRe_docvqa |" in (benchmark_dir.out / "summary.md").read_text()
    shutil.rmtree(benchmark_dir.media / "video-tasks")
    assert list(score("HMDB51")["failed"]) == ["HMDB51"]
    (left,) = [n for n in score("OK-VQA")["notes"] if n.startswith("Incomplete")]
    assert "(3 of 78)" in left


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--embeddings-dir", "stored", "--latent-steps", "3", "--dtype", "float16"],
            "--latent-steps, --dtype: for PLUME",
        ),
        (["--embeddings-dir", "stored", "--paradigm", "single"], "--paradigm: for PLUME .* on --embeddings-dir"),
        (
            ["--peer", "another", "--max-new-tokens", "8"],
            "--max-new-tokens: for PLUME models, without effect on --peer",
        ),
        (["--embeddings-dir", "stored", "--device", "cpu"], "--device: for PLUME models, .* on --embeddings-dir"),
        (["--embeddings-dir", "stored", "--trust-remote-code"], "a --peer run its own code, and there is none"),
        (["--trust-remote-code"], "a --peer run its own code, and there is none; leave it out"),
        (["--max-new-tokens", "8"], r"of a written rationale \(cot\), and none is asked for; leave it out"),
    ],
)
def test_an_option_that_no_model_would_read_is_refused(options, said, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "mmeb-v2", "--tasks", "OK-VQA", "--check", *options])
    assert re.search(said, capsys.readouterr().err)


def test_a_second_run_embeds_nothing(benchmark_dir):
    benchmark_dir.run()
    first, again = scores_in(benchmark_dir.out), HashEmbedder()
    benchmark_dir.run(again)
    assert again.embedded == 0 and scores_in(benchmark_dir.out) == first
    for file in benchmark_dir.out.glob("embeddings/*/OK-VQA.npz"):
        file.unlink()
    assert [outcome.failure for outcome in benchmark_dir.run(again)] == [None] * 4
    assert again.embedded > 0 and scores_in(benchmark_dir.out) == first


def test_changed_media_and_another_model_are_embedded_again(benchmark_dir):
    benchmark_dir.run(names=NAMES[:1])
    write_picture(benchmark_dir.media / "image-tasks/MMEB/ImageNet-1K/0.jpg", 99, (40, 40))
    again, other = HashEmbedder(), HashEmbedder("0" * 64)
    benchmark_dir.run(again, NAMES[:1])
    benchmark_dir.run(other, NAMES[:1], out=benchmark_dir.root / "other")
    assert again.embedded == other.embedded == 8


def test_a_picture_replaced_by_one_of_equal_size_is_embedded_again(benchmark_dir):
    picture = benchmark_dir.media / "image-tasks/MMEB/ImageNet-1K/0.jpg"
    benchmark_dir.run(names=NAMES[:1])
    before = picture.stat()
    picture.write_bytes(picture.read_bytes()[:-1] + b"\0")
    again = HashEmbedder()
    benchmark_dir.run(again, NAMES[:1])
    assert picture.stat().st_size == before.st_size and again.embedded == 8


def test_what_a_killed_process_left_of_a_part_is_no_part(benchmark_dir, monkeypatch):
    monkeypatch.setattr(embeddings, "ITEMS_PER_PART", 3)
    with pytest.raises(KeyboardInterrupt):
        benchmark_dir.run(HashEmbedder(until=2), NAMES[:1])
    (part, *_) = sorted(benchmark_dir.out.glob("embeddings/*/*.parts/0*.npz"))
    shutil.copy(part, partial_beside(part))
    benchmark_dir.run(names=NAMES[:1])
    stopped = scores_in(benchmark_dir.out)
    benchmark_dir.run(names=NAMES[:1], out=benchmark_dir.root / "whole")
    assert stopped and stopped == scores_in(benchmark_dir.root / "whole")


def test_a_run_stopped_between_parts_goes_on_where_it_was(benchmark_dir, monkeypatch):
    monkeypatch.setattr(embeddings, "ITEMS_PER_PART", 3)
    with pytest.raises(KeyboardInterrupt):
        benchmark_dir.run(HashEmbedder(until=2), NAMES[:1])
    again = HashEmbedder()
    benchmark_dir.run(again, NAMES[:1])
    assert again.embedded == 2
    stopped = scores_in(benchmark_dir.out)
    benchmark_dir.run(names=NAMES[:1], out=benchmark_dir.root / "whole")
    assert stopped == scores_in(benchmark_dir.root / "whole")


def test_a_run_killed_at_any_write_goes_on_to_the_same_scores(benchmark_dir, monkeypatch):
    monkeypatch.setattr(embeddings, "ITEMS_PER_PART", 3)
    benchmark_dir.run(names=NAMES[:1])
    expected, replace, writes = scores_in(benchmark_dir.out), Path.replace, 0
    for survived in range(20):
        out, left = benchmark_dir.root / f"killed-{survived}", [survived]

        def replace_or_die(self, target, left=left):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", replace_or_die)
        try:
            benchmark_dir.run(names=NAMES[:1], out=out)
            break
        except KeyboardInterrupt:
            writes += 1
        finally:
            monkeypatch.setattr(Path, "replace", replace)
        benchmark_dir.run(names=NAMES[:1], out=out)
        assert scores_in(out) == expected
        assert not list(out.glob("embeddings/*/*.parts"))
    assert writes >= 6


def test_finished_embeddings_are_scored_again_as_stored_ones_without_model_or_media(benchmark_dir):
    benchmark_dir.run()
    (stored,) = (benchmark_dir.out / "embeddings").iterdir()
    again = benchmark_dir.root / "again"
    outcomes = benchmark_dir.run(embeddings_dir=stored, out=again, media_dir=None)
    assert [outcome.failure for outcome in outcomes] == [None] * 4
    for name, scores in scores_in(benchmark_dir.out).items():
        assert {k: v for k, v in scores.items() if "@" in k} == {
            k: v for k, v in scores_in(again)[name].items() if "@" in k
        }


def test_stored_candidates_are_matched_by_key_and_not_by_place(benchmark_dir):
    benchmark_dir.run(names=NAMES[:1])
    (stored,) = (benchmark_dir.out / "embeddings").iterdir()
    keys_file, file = stored / "ImageNet-1K_cand_keys.json", stored / "ImageNet-1K.npz"
    with np.load(file) as arrays:
        queries, candidates = arrays["qry"], arrays["cand"]
    keys_file.write_text(json.dumps(json.loads(keys_file.read_text())[::-1]))
    np.savez(file, qry=queries, cand=candidates[::-1])
    again = benchmark_dir.root / "again"
    benchmark_dir.run(names=NAMES[:1], embeddings_dir=stored, out=again)
    first, second = ((out / "image/ImageNet-1K_gen_gen_pred.jsonl").read_text() for out in (benchmark_dir.out, again))
    assert first == second


def damage_keys(file: Path) -> None:
    keys = json.loads(file.read_text())
    file.write_text(json.dumps([*keys[:-1], "other"]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "ImageNet-1K.npz").unlink(), "no stored embeddings: .*ImageNet-1K.npz is missing"),
        (lambda d: (d / "ImageNet-1K.npz").write_bytes(b"PK cut"), r"ImageNet-1K\.npz is damaged"),
        (lambda d: damage_keys(d / "ImageNet-1K_cand_keys.json"), "1 of the task's candidates are missing"),
        (lambda d: np.savez(d / "ImageNet-1K.npz", qry=np.ones((4, 2)), cand=np.ones((3, 2))), "4 queries, the task"),
        (lambda d: np.savez(d / "ImageNet-1K.npz", qry=np.ones((5, 2)), cand=np.ones((2, 2))), "3 keys for the 2"),
        (
            lambda d: np.savez(d / "ImageNet-1K.npz", qry=np.full((5, 1), np.nan), cand=np.ones((3, 1))),
            "query 0 is NaN",
        ),
    ],
    ids=["missing", "broken", "keys", "queries", "candidates", "nan"],
)
def test_stored_embeddings_of_something_else_are_refused(benchmark_dir, damage, message):
    benchmark_dir.run(names=NAMES[:1])
    (stored,) = (benchmark_dir.out / "embeddings").iterdir()
    damage(stored)
    (outcome,) = benchmark_dir.run(names=NAMES[:1], embeddings_dir=stored, out=benchmark_dir.root / "again")
    assert re.search(message, outcome.failure)


def test_the_preflight_lists_what_is_missing_task_by_task_and_writes_nothing(benchmark_dir):
    break_frames(benchmark_dir)
    for number in (1, 2):
        (benchmark_dir.media / f"image-tasks/MMEB/OK-VQA/{number}.jpg").unlink()
    (benchmark_dir.media / "visdoc-tasks/ViDoRe_docvqa/0.png").unlink()
    before = sorted(benchmark_dir.media.rglob("*"))
    tasks = [task_named(name) for name in (*NAMES, "MSVD")]
    checked = list(check_tasks(tasks, "fixed", benchmark_dir.hub, benchmark_dir.media, benchmark_dir.root / "cache"))
    assert [c.is_ready for c in checked] == [True, False, False, True, False]
    assert [len(c.missing) for c in checked] == [0, 2, 1, 0, 0]
    assert "no picture OK-VQA/1.jpg" in checked[1].missing[0] and "no frame folder b" in checked[2].missing[0]
    assert (checked[0].num_queries, checked[0].num_candidates, checked[3].to_write) == (5, 3, 1)
    assert "cannot read the rows of VLM2Vec/MSVD" in checked[4].failure
    assert sorted(benchmark_dir.media.rglob("*")) == before


# Models


def test_plume_through_sentence_transformers_is_a_peer_with_the_same_scores(released_model_dir, tmp_path):
    outcomes = {}
    for kind in ("plume", "peer"):
        embedder = (
            PlumeEmbedder(released_model_dir, num_latent_steps=8, device="cpu")
            if kind == "plume"
            else SentenceTransformerEmbedder(str(released_model_dir), "cpu", trust_remote_code=True)
        )
        settings = Settings("fixed", MEDIA, tmp_path / kind, FIXTURES / "hub", None, 4, tmp_path / "cache")
        (outcomes[kind],) = evaluate([task_named("RefCOCO-Matching")], settings, embedder, Ranks())
        assert outcomes[kind].failure is None
    scores = {kind: {k: v for k, v in o.scores.items() if "@" in k} for kind, o in outcomes.items()}
    assert scores["plume"] == scores["peer"]
    assert outcomes["plume"].scores["ms_per_item"] > 0


def test_the_fingerprint_changes_with_the_number_of_steps(released_model_dir):
    four, eight = (PlumeEmbedder(released_model_dir, num_latent_steps=k, device="cpu") for k in (4, 8))
    single = PlumeEmbedder(released_model_dir, "single", device="cpu")
    assert len({four.fingerprint, eight.fingerprint, single.fingerprint}) == 3
    assert (single.num_latent_steps, single.paradigm) == (0, "single")


@pytest.mark.parametrize(
    ("paradigm", "steps", "message"),
    [
        ("cot", 4, "cot writes a rationale instead of latent steps, got 4"),
        ("single", 4, "A single pass has no latent steps, got 4"),
        ("latent", 0, "use single for none"),
        ("state", 0, "use single for none"),
        ("anchor", 2, "The anchor is read before any step"),
        ("thinking", None, "The paradigms are latent, single, cot"),
    ],
)
def test_a_paradigm_that_cannot_be_had_says_why(paradigm, steps, message):
    with pytest.raises(ValueError, match=message):
        latent_steps_of(paradigm, steps)


# Several processes

WORKER = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from mmeb_v2_data import FIXTURES, task_named
from plume_embed.evaluation.distributed import Ranks
from plume_embed.evaluation.embedders import PlumeEmbedder
from plume_embed.evaluation.mmeb_v2 import embeddings
from plume_embed.evaluation.mmeb_v2.run import Settings, evaluate
embeddings.ITEMS_PER_PART = 8
model, media, out, cache = map(Path, sys.argv[1:])
settings = Settings("fixed", media, out, FIXTURES / "hub", None, 4, cache)
ranks = Ranks()
tasks = [task_named(name) for name in ("RefCOCO-Matching", "ViDoSeek-doc")]
calls = []
class Counting(PlumeEmbedder):
    def embed(self, inputs, batch_size):
        calls.append(len(inputs))
        return super().embed(inputs, batch_size)
outcomes = evaluate(tasks, settings, Counting(model, num_latent_steps=2, device="cpu"), ranks)
print(ranks.rank, ranks.size, len(calls), [outcome.failure for outcome in outcomes])
ranks.close()
"""


def start_workers(count: int, *arguments: Path) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    workers = []
    for rank in range(count):
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        if count > 1:  # what `accelerate launch` sets
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
        command = [sys.executable, "-c", WORKER, *map(str, arguments)]
        workers.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    printed = []
    for worker in workers:
        out, errors = worker.communicate(timeout=900)
        assert worker.returncode == 0, errors[-2000:]
        printed.append(out.strip())
    return printed


def test_two_processes_give_the_vectors_and_scores_of_one_and_share_a_failure(
    released_model_dir, tmp_path, monkeypatch
):
    media = tmp_path / "media"
    shutil.copytree(MEDIA, media)
    page = media / "visdoc-tasks/visdoc-tasks/ViDoSeek-doc/119.png"  # in a part of the second process
    page.write_bytes(b"no picture")
    monkeypatch.setattr(embeddings, "ITEMS_PER_PART", 8)
    settings = Settings("fixed", media, tmp_path / "one", FIXTURES / "hub", None, 4, tmp_path / "cache")
    tasks = [task_named(name) for name in ("RefCOCO-Matching", "ViDoSeek-doc")]
    alone = evaluate(tasks, settings, PlumeEmbedder(released_model_dir, num_latent_steps=2, device="cpu"), Ranks())
    assert alone[0].failure is None and alone[1].failure.startswith("candidate 119: Cannot read")
    printed = start_workers(2, released_model_dir, media, tmp_path / "two", tmp_path / "cache")
    failures = [outcome.failure for outcome in alone]
    # 40 items and 46 items in parts of 8; the second process fails at its second part of the second task
    assert printed == [f"{rank} 2 {calls} {failures}" for rank, calls in ((0, 3 + 3), (1, 2 + 2))]
    assert scores_in(tmp_path / "one") == scores_in(tmp_path / "two")
    assert set(scores_in(tmp_path / "two")) == {"RefCOCO-Matching_gen_gen_score.json"}
    one, two = (next((tmp_path / name).glob("embeddings/*/RefCOCO-Matching.npz")) for name in ("one", "two"))
    with np.load(one) as first, np.load(two) as second:
        assert first["qry"].tobytes() == second["qry"].tobytes()
        assert first["cand"].tobytes() == second["cand"].tobytes()


def test_a_preflight_names_a_missing_folder_once(benchmark_dir, capsys: pytest.CaptureFixture):
    def check(media: Path) -> tuple[int, str, str]:
        command = ["evaluate", "mmeb-v2", "--check", "--hub-dir", str(benchmark_dir.hub), "--media-dir", str(media)]
        with pytest.raises(SystemExit) as end:
            main([*command, "--tasks", "ImageNet-1K,OK-VQA"])
        return end.value.code, *capsys.readouterr()

    code, out, err = check(benchmark_dir.root / "gone")
    assert code == 2 and out == "" and err.count("gone") == 1 and "pass another to --media-dir" in err
    (benchmark_dir.root / "empty").mkdir()
    code, out, err = check(benchmark_dir.root / "empty")
    assert code == 1 and out.count("no folder") == 1 and "2 tasks" in out and "0 of 2 tasks are ready" in out
