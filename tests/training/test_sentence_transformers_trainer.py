"""sentence-transformers' own trainer through the rollout: its losses have our gradient, its checkpoints load again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as Picture
from PIL import Image
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.losses.gradcache import _create_minibatch
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from plume_embed import PlumeProcessor
from plume_embed.encode.encoder import DEFAULT_MODEL
from plume_embed.training.curriculum import suffix_text
from plume_embed.training.loss.batch_loss import LossWeights, TrainingBatch, batch_losses, join
from plume_embed.training.objective import make_side, run_side

PROMPT = "Find: "
SYMMETRIC = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
ROWS = 6


def picture(seed: int, width: int = 42) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (28 + 14 * (seed % 3), width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Queries are texts, positives pictures of several sizes, negatives texts, pictures, or both, by row."""
    kinds = [{"text": f"not {n}", "image": picture(20 + n)} for n in range(ROWS)]
    kinds[0] |= {"image": None}
    kinds[1] |= {"text": None}
    rows = {
        "query": ["a word " * (n + 1) + str(n) for n in range(ROWS)],
        "positive": [picture(n) for n in range(ROWS)],
        "negative": kinds,
    }
    mixed = {"text": Value("string"), "image": Picture()}
    return Dataset.from_dict(rows, Features({"query": Value("string"), "positive": Picture(), "negative": mixed}))


@pytest.fixture(params=[True, False], ids=["blank images", "no blank images"])
def sentence(request, released_model_dir) -> SentenceTransformer:
    """In training mode without dropout, K = 3; a converted model sees a blank image where there is none."""
    model = load(released_model_dir, config_kwargs={"num_latent_steps": 3})
    model[0].processor.blank_image_for_text = request.param
    return model.train()


def load(folder: Path | str, **kwargs) -> SentenceTransformer:
    return SentenceTransformer(str(folder), trust_remote_code=True, device="cpu", **kwargs)


def make_loss(name: str, sentence: SentenceTransformer) -> torch.nn.Module:
    loss = MultipleNegativesRankingLoss(sentence, scale=20.0, **SYMMETRIC)
    if "cached" in name:
        loss = CachedMultipleNegativesRankingLoss(sentence, scale=20.0, mini_batch_size=4, **SYMMETRIC)
    return MatryoshkaLoss(sentence, loss, [64, 16]) if "matryoshka" in name else loss


def trainer(
    sentence: SentenceTransformer, data: Dataset, out: Path, name: str = "plain", evaluator=None, **settings
) -> SentenceTransformerTrainer:
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=3,
        prompts={"query": PROMPT},
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **{"max_steps": 2, "save_steps": 2, **settings},
    )
    loss = make_loss(name, sentence)
    return SentenceTransformerTrainer(sentence, arguments, train_dataset=data, loss=loss, evaluator=evaluator)


def gradient(model: torch.nn.Module) -> torch.Tensor:
    found = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    return torch.cat(found)


def our_gradient(
    sentence: SentenceTransformer, data: Dataset, weights: LossWeights, documents_have_steps: bool = True
) -> torch.Tensor:
    """Of the loss of `train pairs` on the same rows."""
    model, processor = sentence[0].model, sentence[0].processor
    targets = [*data["positive"], *data["negative"]]
    suffix, steps = suffix_text("", None, "after_latents"), model.config.num_latent_steps
    queries = [PROMPT + text for text in data["query"]]
    sides = [
        make_side(processor, queries, [suffix] * ROWS),
        make_side(processor, targets, [suffix] * len(targets) if documents_have_steps else None),
    ]
    numbers = torch.arange(ROWS)
    batch = TrainingBatch(
        *([side] for side in sides),
        target_of_query=numbers,
        target_keys=numbers,
        num_latent_steps=steps,
        negatives=ROWS + numbers.unsqueeze(1),
        negative_keys=100 + numbers.unsqueeze(1),
    )
    loss, _ = batch_losses(*(join([run_side(model, side, steps)]) for side in sides), batch, weights)
    loss.backward()
    return gradient(model)


@pytest.mark.parametrize("name", ["plain", "cached", "matryoshka", "cached matryoshka"])
def test_a_loss_of_the_library_has_the_gradient_of_ours(sentence, data, tmp_path, name):
    running = trainer(sentence, data, tmp_path, name)
    features, _ = running.collect_features(running.data_collator(list(data)))
    running.loss([dict(column) for column in features], None).backward()
    theirs = gradient(sentence[0].model)
    is_matryoshka = "matryoshka" in name
    weights = LossWeights(
        temperature=0.05, cross_entropy=0, anchor=0, balance=0, dimensions=(16,) if is_matryoshka else ()
    )
    ours = our_gradient(sentence, data, weights) * (2 if is_matryoshka else 1)  # the library sums, we take the mean
    assert ours.norm() > 1e-2
    assert (theirs - ours).norm() / ours.norm() < 1e-5


def test_rows_are_cut_by_the_pictures_that_they_have(sentence):
    """A key that holds None is no picture, and a blank one is; the library counts the parts of a message."""
    items = [{"text": "a", "image": None}, {"text": None, "image": picture(1)}, {"text": "b", "image": picture(2)}, "c"]
    has_blank = sentence[0].processor.blank_image_for_text
    expected = [int(has_blank), 1, 1, int(has_blank)]
    assert sentence.preprocess(items)["num_images_per_sample"].tolist() == expected
    features = sentence.preprocess([*items, {"video": [picture(0), picture(3)]}])
    assert features["num_images_per_sample"].tolist() == [*expected, 0]
    assert features["num_videos_per_sample"].tolist() == [0, 0, 0, 0, 1]


def test_rows_are_cut_by_the_frames_of_their_films_where_these_are_pictures():
    sentence = load(DEFAULT_MODEL).eval()
    film = [picture(0), picture(3)]
    items = [{"video": film}, "a", {"image": picture(1), "video": [*film, picture(6)]}, {"image": picture(2)}]
    features = sentence.preprocess(items)
    assert features["num_images_per_sample"].tolist() == [2, 0, 4, 1]
    with torch.inference_mode():
        whole = sentence(dict(features))["sentence_embedding"]
        parts = [sentence(_create_minibatch(features, row, row + 1))["sentence_embedding"] for row in range(4)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-5)


def test_a_checkpoint_loads_with_prompts_similarity_and_k(released_model_dir, data, tmp_path):
    prompts = {"query": PROMPT, "document": ""}
    sentence = load(
        released_model_dir, prompts=prompts, similarity_fn_name="dot", config_kwargs={"num_latent_steps": 3}
    )
    before = sentence.encode_query(["a word"])
    evaluator = make_evaluator(data)
    running = trainer(sentence, data, tmp_path, "cached matryoshka", evaluator, eval_strategy="steps", eval_steps=1)
    running.train()
    assert [entry["eval_dot_ndcg@10"] for entry in running.state.log_history if "eval_dot_ndcg@10" in entry]
    again = load(tmp_path / "checkpoint-2")
    assert (again.prompts, again.similarity_fn_name) == (prompts, "dot")
    assert again[0].model.config.num_latent_steps == 3
    assert again.encode(["a"], num_latent_steps=0).shape == (1, 64)
    sentence.eval()
    after = sentence.encode_query(["a word"])
    assert np.allclose(again.encode_query(["a word"]), after, atol=1e-6) and not np.allclose(before, after, atol=1e-4)
    assert evaluator(again) == pytest.approx(evaluator(sentence), abs=1e-6)
    # The library keeps no truncate_dim: it is an argument of loading, and holds for encode and for evaluators.
    assert load(tmp_path / "checkpoint-2", truncate_dim=16).encode_query(["a word"]).shape == (1, 16)
    assert PlumeProcessor.from_pretrained(tmp_path / "checkpoint-2").blank_image_for_text


def make_evaluator(data: Dataset) -> InformationRetrievalEvaluator:
    queries, corpus = ({str(n): row for n, row in enumerate(data[name])} for name in ("query", "positive"))
    return InformationRetrievalEvaluator(queries, corpus, {name: {name} for name in queries}, write_csv=False)


def test_a_run_resumes_from_a_checkpoint_to_the_same_weights(released_model_dir, data, tmp_path):
    whole = trainer(load(released_model_dir), data, tmp_path, max_steps=4)
    whole.train()
    resumed = trainer(load(released_model_dir), data, tmp_path / "resumed", max_steps=4, save_strategy="no")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("sentence", [True], indirect=True)
def test_bfloat16_autocast_has_nearly_the_same_gradient(sentence, data, tmp_path):
    running = trainer(sentence, data, tmp_path, bf16=True)
    features, _ = running.collect_features(running.data_collator(list(data)))
    found = []
    for is_on in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_on):
            loss = running.loss([dict(column) for column in features], None)
        loss.backward()
        found.append(gradient(sentence[0].model))
    assert loss.dtype == torch.float32 and torch.isfinite(found[0]).all()
    assert torch.cosine_similarity(*found, dim=0) > 0.98


def test_documents_are_trained_with_their_own_steps_and_a_run_that_cannot_tell_them_is_refused(
    released_model_dir, data, tmp_path
):
    """K = 3 for queries, none for documents: the gradient of our loss with the same sides."""
    sentence = load(released_model_dir, config_kwargs={"num_latent_steps": 3, "document_latent_steps": 0}).train()
    mapping = {"query": "query", "positive": "document", "negative": "document"}
    running = trainer(sentence, data, tmp_path, router_mapping=mapping)
    features, _ = running.collect_features(running.data_collator(list(data)))
    running.loss([dict(column) for column in features], None).backward()
    theirs = gradient(sentence[0].model)
    weights = LossWeights(temperature=0.05, cross_entropy=0, anchor=0, balance=0)
    ours = our_gradient(sentence, data, weights, documents_have_steps=False)
    assert (theirs - ours).norm() / ours.norm() < 1e-5
    with pytest.raises(ValueError, match=r"3 latent steps and documents 0: .*router_mapping"):
        trainer(sentence, data, tmp_path).train()


def test_gradient_checkpointing_of_the_library_is_refused_with_the_remedy(released_model_dir, data, tmp_path):
    running = trainer(load(released_model_dir), data, tmp_path, gradient_checkpointing=True)
    with pytest.raises(ValueError, match=r"drops the cache.*leave gradient_checkpointing out"):
        running.train()
