"""PLUME in mteb, on small local tasks; nothing is fetched."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from datasets import Audio, Dataset, Features, Image, Value, Video
from model.families import NAMES, make_tiny
from PIL import Image as Picture

mteb = pytest.importorskip("mteb")

from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.types import PromptType  # noqa: E402

from plume_embed.evaluation.embedders import PlumeEmbedder  # noqa: E402
from plume_embed.evaluation.mteb_wrapper import PlumeMteb, instruction_of, item_of, rows, with_video_files  # noqa: E402

COLOURS = ("red", "green", "blue", "black", "white", "yellow", "cyan", "purple")


def picture(colour: str, side: int = 40) -> Picture.Image:
    return Picture.new("RGB", (side, 30), colour)


def metadata(
    name: str, category: str, prompt: dict | None = None, modalities: tuple[str, ...] = ("text", "image")
) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description="Colours.",
        reference="https://example.org/colours",
        dataset={"path": "local/colours", "revision": "1"},
        type="Any2AnyRetrieval",
        category=category,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2026-01-01", "2026-01-02"),
        domains=["Constructed"],
        task_subtypes=[],
        license="apache-2.0",
        annotations_creators="derived",
        dialect=[],
        modalities=list(modalities),
        sample_creation="created",
        bibtex_citation="",
        prompt=prompt,
    )


class Colours(AbsTaskRetrieval):
    """A text, or a picture with a text, as the query; pictures as documents."""

    metadata = metadata("ColoursT2I", "t2i")

    def load_data(self, **kwargs) -> None:
        names = [f"d{number}" for number in range(len(COLOURS))]
        corpus = Dataset.from_dict(
            {"id": names, "image": [picture(c) for c in COLOURS]}, Features({"id": Value("string"), "image": Image()})
        )
        columns = {"id": [f"q{number}" for number in range(len(COLOURS))], "text": [f"all {c}" for c in COLOURS]}
        features = {"id": Value("string"), "text": Value("string")}
        if self.metadata.category.startswith("it"):
            columns["image"] = [picture(c, 60) for c in COLOURS]
            features["image"] = Image()
        relevant = {f"q{number}": {f"d{number}": 1} for number in range(len(COLOURS))}
        queries = Dataset.from_dict(columns, Features(features))
        self.dataset = {
            "default": {
                "test": RetrievalSplitData(corpus=corpus, queries=queries, relevant_docs=relevant, top_ranked=None)
            }
        }
        self.data_loaded = True


class EditedColours(Colours):
    metadata = metadata("ColoursIT2I", "it2i", {"query": "Find the same colour."})


class Clips(AbsTaskRetrieval):
    """A text, or another clip of the same colour, as the query; clips as documents, as files or as their bytes."""

    metadata = metadata("ClipsT2V", "t2v", modalities=("text", "video"))
    folder: Path
    as_bytes = False

    def load_data(self, **kwargs) -> None:
        names = [f"d{number}" for number in range(len(COLOURS))]
        files = [write_clip(self.folder / f"{colour}.mp4", colour, 12) for colour in COLOURS]
        features = Features({"id": Value("string"), "video": Video(decode=True)})
        corpus = Dataset.from_dict({"id": names, "video": [self.stored(file) for file in files]}, features)
        asked = [f"q{number}" for number in range(len(COLOURS))]
        if self.metadata.category == "v2v":
            longer = [write_clip(self.folder / f"{colour}-longer.mp4", colour, 20) for colour in COLOURS]
            queries = Dataset.from_dict({"id": asked, "video": [self.stored(file) for file in longer]}, features)
        else:
            queries = Dataset.from_dict({"id": asked, "text": [f"all {colour}" for colour in COLOURS]})
        relevant = {query: {name: 1} for query, name in zip(asked, names, strict=True)}
        split = RetrievalSplitData(corpus=corpus, queries=queries, relevant_docs=relevant, top_ranked=None)
        self.dataset, self.data_loaded = {"default": {"test": split}}, True

    def stored(self, file: Path) -> dict:
        return {"bytes": file.read_bytes(), "path": None} if self.as_bytes else {"bytes": None, "path": str(file)}


class SameClips(Clips):
    metadata = metadata("ClipsV2V", "v2v", modalities=("video",))


def write_clip(path: Path, colour: str, num_frames: int) -> Path:
    """A clip of one colour that gets darker."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 56
        stream.pix_fmt = "yuv420p"
        for index in range(num_frames):
            share = 1 - index / num_frames / 2
            frame = Picture.new("RGB", (56, 56), colour).point(lambda value, share=share: int(value * share))
            for packet in stream.encode(av.VideoFrame.from_image(frame)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.fixture(scope="module")
def model(released_model_dir) -> PlumeMteb:
    return PlumeMteb(PlumeEmbedder(released_model_dir, num_latent_steps=2, device="cpu"))


@pytest.mark.parametrize("task", [Colours, EditedColours])
def test_mteb_evaluates_and_the_batch_size_changes_no_score(model, task):
    scores = {}
    for batch_size in (1, 16):
        scores[batch_size] = evaluated(model, task(), batch_size)
    assert scores[1] == scores[16]
    assert 0 <= scores[1]["ndcg_at_10"] <= 1 and scores[1]["recall_at_10"] == 1.0


def evaluated(model: PlumeMteb, task: AbsTaskRetrieval, batch_size: int) -> dict[str, float]:
    result = mteb.evaluate(
        model, task, cache=None, encode_kwargs={"batch_size": batch_size}, show_progress_bar=False, co2_tracker=False
    )
    found = result.task_results[0].scores["test"][0]
    return {key: value for key, value in found.items() if isinstance(value, float)}


@pytest.mark.parametrize("kind", [Clips, SameClips])
def test_video_retrieval_runs_from_files_and_from_bytes_without_torchcodec(model, kind, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)  # importing it fails, installed or not
    scores = []
    for as_bytes, batch_size in ((False, 1), (False, 16), (True, 16)):
        task = kind()
        task.folder, task.as_bytes = tmp_path, as_bytes
        scores.append(evaluated(model, task, batch_size))
    assert scores[0] == scores[1] == scores[2]
    queries = [{"text": f"all {colour}"} for colour in COLOURS]
    if kind is SameClips:
        queries = [{"video": tmp_path / f"{colour}-longer.mp4"} for colour in COLOURS]
    documents = model.model.embed([{"video": tmp_path / f"{colour}.mp4"} for colour in COLOURS], 4)
    similarity = model.model.embed(queries, 4) @ documents.T
    ranks = (similarity >= similarity.diagonal()[:, None]).sum(axis=1)
    assert scores[0]["mrr_at_10"] == pytest.approx((1 / ranks).mean(), abs=1e-4)
    assert kind is Clips or scores[0]["ndcg_at_1"] > 0.5


def test_videos_stay_files_until_they_are_embedded_and_audio_is_left_out(tmp_path):
    file = {"path": str(write_clip(tmp_path / "long.mp4", "red", 40)), "bytes": None}
    struct = {"path": Value("string"), "bytes": Value("binary")}
    features = Features({"id": Value("string"), "video": struct, "audio": struct})
    dataset = Dataset.from_dict({"id": ["a"], "video": [file], "audio": [file]}, features)
    dataset = dataset.cast_column("video", Video()).cast_column("audio", Audio())
    loader = torch.utils.data.DataLoader(dataset, collate_fn=lambda batch: {k: [r[k] for r in batch] for k in batch[0]})
    (batch,) = with_video_files(loader)
    assert sorted(batch) == ["id", "video"]
    assert list(rows(batch, tmp_path)) == [{"video": tmp_path / "long.mp4"}]


def test_the_paradigm_reaches_the_model_and_the_time_is_counted(released_model_dir):
    single = PlumeMteb(released_model_dir, num_latent_steps=0, device="cpu")
    explicit = PlumeMteb(released_model_dir, device="cpu", paradigm="cot", max_new_tokens=3)
    assert (single.model.paradigm, explicit.model.paradigm) == ("single", "cot")
    evaluated(single, Colours(), 4)
    assert single.num_items == 2 * len(COLOURS) and single.seconds > 0
    with pytest.raises(ValueError, match="None of .* rationales came to the embedding token within 3 tokens"):
        evaluated(explicit, Colours(), 4)


def test_the_wrapper_gives_the_vectors_of_the_model(model):
    class Loader(list):
        dataset = Dataset.from_dict({"text": ["x"]})

    batches = Loader([{"text": ["all red", "all blue"]}, {"text": [None], "image": [picture("red")]}])
    task = metadata("Colours", "t2i")
    ours = model.encode(batches, task_metadata=task, hf_split="test", hf_subset="default")
    expected = model.model.embed([{"text": "all red"}, {"text": "all blue"}, {"image": picture("red")}], 8)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_frames_of_a_video_are_embedded_as_a_video(model):
    frames = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    as_tensor, as_list = (model.model.embed([item_of({"video": video}, "")], 1) for video in (frames, frames.numpy()))
    np.testing.assert_array_equal(as_tensor, as_list)


def test_the_instruction_stands_before_the_querys_text_only():
    prompt = {"query": "Find it."}
    assert instruction_of(prompt, PromptType.query) == "Find it."
    assert instruction_of(prompt, PromptType.document) == ""
    assert instruction_of("Find it.", PromptType.document) == ""
    assert instruction_of("Find it.", None) == "Find it." and instruction_of(None, PromptType.query) == ""
    assert item_of({"text": "red", "image": None}, "Find it.") == {"text": "Find it. red"}
    assert item_of({"image": "p"}, "Find it.") == {"image": "p", "text": "Find it."}
    assert item_of({"image": "p", "text": ""}, "") == {"image": "p"} and item_of({"text": ""}, "") == {"text": ""}


def test_inputs_that_plume_does_not_take_are_refused(tmp_path):
    with pytest.raises(ValueError, match="PLUME takes text, image, video; the task has only audio"):
        list(rows({"audio": [1]}, tmp_path))
    with pytest.raises(ValueError, match="neither text nor image nor video"):
        item_of({"text": None, "image": None}, "")


def test_the_meta_names_modalities_and_a_revision_of_the_weights(model):
    meta = model.mteb_model_meta
    assert meta.modalities == ["text", "image", "video"] and meta.name == "plume-embed/PLUME"
    assert meta.revision == model.model.fingerprint[:16]
    bare = PlumeMteb(model.model, use_instructions=False).mteb_model_meta
    assert bare.revision != meta.revision  # mteb would give the scores of the one for those of the other
    assert PlumeMteb(model.model, revision="1", use_instructions=False).mteb_model_meta.revision != "1"


@pytest.mark.parametrize("family", [name for name in NAMES if name != "qwen2_vl"])
def test_mteb_gets_the_processors_vectors_of_every_family(family, tmp_path):
    made = make_tiny(family)
    made.model.save_pretrained(tmp_path)
    made.processor.save_pretrained(tmp_path)
    model = PlumeMteb(PlumeEmbedder(tmp_path, num_latent_steps=2, device="cpu"))
    scores = evaluated(model, EditedColours(), 3)
    queries = [{"text": f"Find the same colour. all {c}", "image": picture(c, 60)} for c in COLOURS]
    similarity = model.model.embed(queries, 8) @ model.model.embed([{"image": picture(c)} for c in COLOURS], 8).T
    ranks = (similarity >= similarity.diagonal()[:, None]).sum(axis=1)
    assert scores["mrr_at_10"] == pytest.approx((1 / ranks).mean(), abs=1e-4)
    with torch.inference_mode():
        expected = made.model(**made.processor(queries), num_latent_steps=2).embeddings
    np.testing.assert_allclose(model.model.embed(queries, 3), expected.numpy(), atol=1e-5)
