"""PLUME in mteb, on small local tasks; nothing is fetched."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as Picture

mteb = pytest.importorskip("mteb")

from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.types import PromptType  # noqa: E402

from plume_embed.evaluation.embedders import PlumeEmbedder  # noqa: E402
from plume_embed.evaluation.mteb_wrapper import PlumeMteb, instruction_of, item_of, rows  # noqa: E402

COLOURS = ("red", "green", "blue", "black", "white", "yellow", "cyan", "purple")


def picture(colour: str, side: int = 40) -> Picture.Image:
    return Picture.new("RGB", (side, 30), colour)


def metadata(name: str, category: str, prompt: dict | None = None) -> TaskMetadata:
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
        modalities=["text", "image"],
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


@pytest.fixture(scope="module")
def model(released_model_dir) -> PlumeMteb:
    return PlumeMteb(PlumeEmbedder(released_model_dir, num_latent_steps=2, device="cpu"))


@pytest.mark.parametrize("task", [Colours, EditedColours])
def test_mteb_evaluates_and_the_batch_size_changes_no_score(model, task):
    scores = {}
    for batch_size in (1, 16):
        result = mteb.evaluate(
            model,
            task(),
            cache=None,
            encode_kwargs={"batch_size": batch_size},
            show_progress_bar=False,
            co2_tracker=False,
        )
        found = result.task_results[0].scores["test"][0]
        scores[batch_size] = {key: value for key, value in found.items() if isinstance(value, float)}
    assert scores[1] == scores[16]
    assert 0 <= scores[1]["ndcg_at_10"] <= 1 and scores[1]["recall_at_10"] == 1.0


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


def test_inputs_that_plume_does_not_take_are_refused():
    with pytest.raises(ValueError, match="PLUME takes text, image, video; the task has only audio"):
        list(rows({"audio": [1]}))
    with pytest.raises(ValueError, match="neither text nor image nor video"):
        item_of({"text": None, "image": None}, "")


def test_the_meta_names_modalities_and_a_revision_of_the_weights(model):
    meta = model.mteb_model_meta
    assert meta.modalities == ["text", "image", "video"] and meta.name == "plume-embed/PLUME"
    assert meta.revision == model.model.fingerprint[:16]
