"""Explicit chain of thought: greedy decoding on a model of random weights that is made to write what we want to see."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from common import CASES, case_item, random_item
from mmeb_v2_data import FIXTURES

from plume_embed.encode.encoder import Encoder
from plume_embed.encode.rationale import RationaleEncoder, generate_rationale
from plume_embed.evaluation.distributed import Ranks
from plume_embed.evaluation.embedders import PlumeEmbedder
from plume_embed.evaluation.mmeb_v2 import report
from plume_embed.evaluation.mmeb_v2.run import Settings, evaluate, stamp_of
from plume_embed.evaluation.mmeb_v2.tasks import load_tasks
from plume_embed.model.modeling_plume import PlumeModel

pd = pytest.importorskip("pandas", reason="it comes with the extra train")


@pytest.fixture(scope="module")
def encoder(released_model_dir) -> Encoder:
    return Encoder(released_model_dir, device="cpu")


@pytest.fixture(scope="module")
def model(encoder):
    return encoder.model


@pytest.fixture(scope="module")
def processor(encoder):
    return encoder.processor


@pytest.fixture
def ends_by_itself(monkeypatch):
    """Each state picks one of few tokens as good as by chance, so that every row ends somewhere else."""
    few = 12

    def logits(model, states):
        vocabulary = model.config.get_text_config().vocab_size
        generator = torch.Generator().manual_seed(3)
        tokens = torch.randperm(vocabulary, generator=generator)[:few]
        tokens[0] = model.config.embedding_token_id
        picked = (20 * states @ torch.randn(states.shape[-1], generator=generator)).floor().long() % few
        return F.one_hot(tokens[picked], vocabulary)

    monkeypatch.setattr(PlumeModel, "next_token_logits", logits)


@pytest.mark.parametrize("num_latent_steps", [0, 2])
def test_what_is_decoded_is_the_argmax_of_the_teacher_forced_states(model, processor, num_latent_steps):
    items = [case_item(case) for case in CASES[:4]]
    batch = dict(processor(items))
    written = generate_rationale(model, batch, num_latent_steps, max_new_tokens=6)
    assert not written.finished.any()
    assert [len(row) for row in written.token_ids] == [6] * 4
    for index, item in enumerate(items):
        ids = torch.tensor([written.token_ids[index]])
        assert ids[0, -1] == model.config.embedding_token_id
        with torch.inference_mode():
            prefix = model.prefix(**processor([item]))
            z = prefix.z0
            for step in range(1, num_latent_steps + 1):
                z, _ = model.latent_step(z, prefix, step)
            hidden = model.suffix(prefix, num_latent_steps, ids)[0]
        states = torch.cat((z, hidden[:-1]))
        best = (states @ model.get_input_embeddings().weight.T).argmax(dim=-1)
        assert best[:-1].tolist() == written.token_ids[index][:-1]
        torch.testing.assert_close(written.embeddings[index], F.normalize(hidden[-1], dim=0), atol=1e-5, rtol=0)


def test_each_row_ends_at_its_own_embedding_token(model, processor, monkeypatch):
    gen_id, calls = model.config.embedding_token_id, []

    def scripted(model, z):
        rows = torch.tensor([[gen_id, 7, 7], [8, gen_id, 8], [9, 9, gen_id]])[:, len(calls)]
        calls.append(rows)
        return F.one_hot(rows, model.config.get_text_config().vocab_size)

    monkeypatch.setattr(PlumeModel, "next_token_logits", scripted)
    written = generate_rationale(model, dict(processor(["a", "b c", "d e f"])), max_new_tokens=9)
    assert written.token_ids == [[gen_id], [8, gen_id], [9, 9, gen_id]]
    assert written.finished.tolist() == [True] * 3
    with torch.inference_mode():
        prefix = model.prefix(**processor(["a"]))
        reference = model.suffix(prefix, 0, torch.tensor([[gen_id]]))[0, -1]
    torch.testing.assert_close(written.embeddings[0], F.normalize(reference, dim=0), atol=1e-5, rtol=0)


def test_a_batch_writes_what_each_item_writes_alone(encoder, ends_by_itself):
    rng = random.Random(5)
    items = [random_item(rng) for _ in range(24)]
    alone, together = RationaleEncoder(encoder, 60), RationaleEncoder(encoder, 60)
    ones = np.concatenate([alone.encode_readable([item], 1)[0] for item in items])
    many, errors = together.encode_readable(items, 8)
    assert errors == {} and alone.written == together.written
    lengths = [len(generate_rationale(encoder.model, dict(encoder.processor([i])), 0, 60).token_ids[0]) for i in items]
    assert len(set(lengths)) > 4 and alone.written.num_tokens == sum(lengths) > 60, "rows of one length prove nothing"
    np.testing.assert_allclose(many, ones, atol=1e-5)
    shuffled = rng.sample(range(24), 24)
    again, _ = RationaleEncoder(encoder, 60).encode_readable([items[place] for place in shuffled], 8)
    np.testing.assert_allclose(again, ones[shuffled], atol=1e-5)


def test_items_are_taken_by_position_and_one_conversation_is_refused(encoder, ends_by_itself):
    texts = pd.Series(["a red bicycle", "a cat", "the moon over a lake"], index=[2, 0, 1])
    by_column, _ = RationaleEncoder(encoder, 60).encode_readable(texts, 2)
    np.testing.assert_allclose(by_column, RationaleEncoder(encoder, 60).encode_readable([*texts], 2)[0], atol=1e-5)
    with pytest.raises(ValueError, match="got one conversation"):
        RationaleEncoder(encoder, 60).encode_readable([{"role": "system", "content": "a"}], 2)


def test_what_is_written_changes_the_vector(encoder, ends_by_itself):
    explicit, _ = RationaleEncoder(encoder, 60).encode_readable(["a red bicycle"], 1)
    assert float((explicit @ encoder.encode(["a red bicycle"], num_latent_steps=0).T)[0, 0]) < 0.99


def test_a_rationale_that_is_cut_is_counted_and_one_item_that_cannot_be_read_is_named(encoder, ends_by_itself):
    rng = random.Random(5)
    items = [*(random_item(rng) for _ in range(12)), {"image": "no-such-file.png"}]
    for limit in (60, 8):
        writer = RationaleEncoder(encoder, limit)
        vectors, errors = writer.encode_readable(items, 4)
        assert list(errors) == [12] and "no-such-file.png" in errors[12] and np.isnan(vectors[12]).all()
        np.testing.assert_allclose(np.linalg.norm(vectors[:12], axis=1), 1, atol=1e-5)
        assert writer.written.num_rows == 12
        assert (writer.written.num_cut > 0) == (limit == 8) and writer.written.mean_tokens <= limit


def test_a_model_that_never_ends_is_refused_after_a_few_items(encoder):
    writer = RationaleEncoder(encoder, 3)
    with pytest.raises(ValueError, match="None of 32 rationales .* within 3 tokens.*Use the paradigm latent or single"):
        writer.encode_readable([f"text {n}" for n in range(100)], 16)
    with pytest.raises(ValueError, match="None of 1 rationales"):
        RationaleEncoder(encoder, 3).encode_readable(["a"], 1)
    with pytest.raises(ValueError, match="at least 1 token"):
        RationaleEncoder(encoder, 0)


def test_the_paradigms_share_one_model_and_have_fingerprints_of_their_own(encoder, ends_by_itself):
    ways = [PlumeEmbedder(encoder), PlumeEmbedder(encoder, "single"), PlumeEmbedder(encoder, "cot")]
    ways.append(PlumeEmbedder(encoder, "cot", max_new_tokens=60))
    assert [way.paradigm for way in ways] == ["latent", "single", "cot", "cot"]
    assert len({way.fingerprint for way in ways}) == 4 and {way.encoder for way in ways} == {encoder}
    vectors = [way.embed([{"text": "a red bicycle"}], 4)[0] for way in ways]
    assert all(float(one @ other) < 0.999 for one, other in pairwise(vectors[:3]))
    assert ways[0].written is None and ways[3].written.num_rows == 1


def test_mmeb_scores_written_rationales_and_counts_what_was_cut(encoder, ends_by_itself, tmp_path):
    task = next(task for task in load_tasks() if task.name == "RefCOCO-Matching")
    scores = []
    for batch_size, limit in ((1, 300), (4, 300), (4, 8)):
        out = tmp_path / f"{batch_size}-{limit}"
        settings = Settings(
            "fixed", FIXTURES / "data_basedir", out, FIXTURES / "hub", None, batch_size, tmp_path / "cache"
        )
        (outcome,) = evaluate([task], settings, PlumeEmbedder(encoder, "cot", max_new_tokens=limit), Ranks())
        assert outcome.failure is None
        assert (outcome.scores["paradigm"], outcome.scores["batch_size"]) == ("cot", batch_size)
        scores.append(outcome.scores)
    ranked = [{name: value for name, value in of_run.items() if "@" in name} for of_run in scores]
    assert ranked[0] == ranked[1]
    assert scores[1]["num_cut_rationales"] == 0 < scores[2]["num_cut_rationales"]
    stamp = stamp_of(settings, PlumeEmbedder(encoder, "cot", max_new_tokens=8))
    lines = report.notes([outcome], report.run_column([outcome], stamp))
    assert any(line.endswith("rationales were cut at the token limit and read there.") for line in lines)
