"""The training forward: the released trainer's values, one batch against its rows, chunks against the whole."""

import random
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from common import CASES, case_item, expected, random_item

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.training.curriculum import TraceText, suffix_text
from plume_embed.training.latents.traces import TraceLosses, make_trace
from plume_embed.training.loss.batch_loss import LossWeights, TrainingBatch, batch_losses, join
from plume_embed.training.loss.grad_cache import average_gradients, cached_backward
from plume_embed.training.loss.losses import info_nce
from plume_embed.training.objective import PlumeForTraining, SideBatch, make_side, run_side


@pytest.fixture(scope="module")
def processor(released_model_dir):
    processor = PlumeProcessor.from_pretrained(released_model_dir)
    processor.blank_image_for_text = False
    return processor


def load(folder, **settings) -> PlumeModel:
    return PlumeModel.from_pretrained(folder, **settings)


@pytest.mark.parametrize("kind", ["k8", "k4_answer"])
def test_states_and_cross_entropies_of_the_released_trainer_are_reproduced_in_one_batch(
    released_model_dir, processor, kind
):
    model = load(released_model_dir, position_mode="released_training").eval()
    rows = [torch.tensor(case[f"train_suffix_ids_{kind}"]) for case in CASES]
    # The released suffixes go on behind <gen_emb>; every second row is cut there to make the lengths differ.
    gen_id = model.config.embedding_token_id
    lengths = torch.tensor([len(row) for row in rows])
    side = SideBatch(dict(processor([case_item(case) for case in CASES])), torch.stack(rows), lengths)
    with torch.inference_mode():
        losses = run_side(model, side, int(kind[1])).token_losses / lengths
        side.suffix_lengths = (side.suffix_ids == gen_id).int().argmax(dim=1) + 1
        gen = run_side(model, side, int(kind[1])).gen
    for row, case in enumerate(CASES):
        assert losses[row].item() == pytest.approx(case[f"train_ce_{kind}"], abs=1e-4), case["name"]
        value = F.normalize(expected()[f"{case['name']}.train_gen_state_{kind}"], dim=0)
        torch.testing.assert_close(gen[row], value, atol=1e-4, rtol=0)


def test_the_last_stage_is_what_inference_runs(released_model_dir, processor):
    model = load(released_model_dir, position_mode="mrope").eval()
    items = [case_item(case) for case in CASES[:4]]
    with torch.inference_mode():
        output = run_side(model, make_side(processor, items, [suffix_text("", None, "after_latents")] * 4), 8)
        single = run_side(model, make_side(processor, items, None), 8)
        reference = model(**processor(items), output_anchor_embeddings=True, output_router_probs=True)
        reference_single = model(**processor(items), num_latent_steps=0)
    torch.testing.assert_close(output.gen, reference.embeddings)
    torch.testing.assert_close(output.anchor, reference.anchor_embeddings)
    torch.testing.assert_close(output.router_probs, reference.router_probs)
    torch.testing.assert_close(single.gen, reference_single.embeddings)
    assert single.token_losses.tolist() == [0] * 4 and single.router_probs is None


def test_cross_entropy_is_that_of_the_whole_sequence_without_a_cache(released_model_dir, processor):
    # K = 0: the sequence is plain text, and the backbone alone can compute it in one call.
    model = load(released_model_dir, position_mode="mrope").eval()
    side = make_side(processor, ["a red bicycle"], ["<eot>It is red. It has wheels.</think>\n<gen_emb>"])
    ids = torch.cat((side.prefix["input_ids"], side.suffix_ids), dim=1)
    with torch.no_grad():
        ours = run_side(model, side, 0)
        hidden = model.backbone.language_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    logits = hidden[:-1] @ model.get_input_embeddings().weight.T
    reference = F.cross_entropy(logits, ids[0, 1:], reduction="none")[-side.suffix_ids.shape[1] :].sum()
    torch.testing.assert_close(ours.token_losses[0], reference, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(ours.gen[0], F.normalize(hidden[-1], dim=0), atol=1e-5, rtol=0)


SUFFIXES = [
    "<eot>Two wheels. A frame.</think>\n<answer>a bicycle</answer>\n<gen_emb>",
    "<eot></think>\n<gen_emb>",
    "<eot>湖边。</think>\n<gen_emb>",
    "<eot>A long rest of a rationale, longer than the others by far.</think>\n<answer>x</answer>\n<gen_emb>",
]
WEIGHTS = LossWeights(temperature=0.1, distil=0.7, decode=0.3)
# Rationales, and what three latent steps stand for in each: of different lengths, with parts that are empty.
TRACED = [
    ("It is red. It has two wheels. So a bicycle.", ("It is red. ", "It has two wheels. ", "So a bicycle.")),
    ("A cat.", ("A", "", " cat.")),
    ("", ("", "", "")),
    ("One thing, then another thing, and then a third one.", ("One thing, ", "then another ", "thing")),
]


def training_batch(
    processor: PlumeProcessor,
    chunks: list[range],
    num_latent_steps: int,
    early_steps: tuple[int, ...] = (),
    traced: bool = False,
) -> TrainingBatch:
    rng = random.Random(4)
    queries, targets = ([random_item(rng) for _ in range(4)] for _ in range(2))
    traces = [TraceText(f"{text}</think>\n<gen_emb>", 0, parts) for text, parts in TRACED] if traced else []

    def side(items: list, suffixes: list[str], rows: range) -> SideBatch:
        made = make_side(processor, [items[i] for i in rows], [suffixes[i] for i in rows])
        asked = TraceLosses(True, True)
        return replace(made, trace=make_trace(processor, [traces[i] for i in rows], asked)) if traced else made

    return TrainingBatch(
        queries=[side(queries, SUFFIXES, chunk) for chunk in chunks],
        targets=[side(targets, SUFFIXES[::-1], chunk) for chunk in chunks],
        target_of_query=torch.tensor([0, 1, 2, 3]),
        target_keys=torch.tensor([5, 6, 5, 7]),
        num_latent_steps=num_latent_steps,
        early_steps=early_steps,
    )


def gradients(model: PlumeModel) -> dict[str, torch.Tensor]:
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return grads


def assert_equal_gradients(first: dict, second: dict, tolerance: float) -> None:
    scale = max(gradient.abs().max().item() for gradient in second.values())
    assert first.keys() == second.keys() and scale > 0
    for name, gradient in first.items():
        assert (gradient - second[name]).abs().max().item() <= tolerance * scale, name


def direct(model: PlumeModel, batch: TrainingBatch) -> dict[str, torch.Tensor]:
    outputs = PlumeForTraining(model)(batch.queries + batch.targets, batch.num_latent_steps, batch.early_steps)
    split = len(batch.queries)
    loss, terms = batch_losses(join(outputs[:split]), join(outputs[split:]), batch, WEIGHTS)
    loss.backward()
    return {"loss": loss.detach(), **terms}


@pytest.mark.parametrize(
    ("num_latent_steps", "early", "traced"), [(0, (), False), (3, (), False), (3, (0, 1, 2), False), (3, (1,), True)]
)
def test_gradients_of_a_batch_equal_per_sample_autograd(released_model_dir, processor, num_latent_steps, early, traced):
    # float64, so that the tolerance tells a wrong gradient from the rounding of long sums.
    model = load(released_model_dir, position_mode="mrope", dtype=torch.float64)
    together = direct(model, training_batch(processor, [range(4)], num_latent_steps, early, traced))
    batched = gradients(model)
    rows = [range(i, i + 1) for i in range(4)]
    alone = direct(model, training_batch(processor, rows, num_latent_steps, early, traced))
    assert_equal_gradients(batched, gradients(model), 1e-5)
    assert together.keys() == alone.keys() and ("nce_early" in alone) == bool(early)
    assert ("distil" in alone) == ("decode" in alone) == traced
    for name, value in together.items():
        torch.testing.assert_close(value, alone[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_gradient_cache_gives_the_gradient_of_the_whole_batch(released_model_dir, processor, dropout):
    model = load(released_model_dir, position_mode="mrope", dtype=torch.float64, adapter_dropout=dropout).train()
    batch = training_batch(processor, [range(2), range(2, 3), range(3, 4)], 3, (1,), traced=True)
    torch.manual_seed(0)
    reference = direct(model, batch)
    whole = gradients(model)
    torch.manual_seed(0)
    loss, terms = cached_backward(PlumeForTraining(model), batch, WEIGHTS)
    assert_equal_gradients(gradients(model), whole, 1e-9)
    for name, value in {"loss": loss, **terms}.items():
        torch.testing.assert_close(value, reference[name])


def _two_processes(rank: int, folder: str, out: str) -> None:
    """Half of the batch on each of two processes, averaged as DDP does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=2)
    model = load(folder, position_mode="mrope", dtype=torch.float64)
    processor = PlumeProcessor.from_pretrained(folder)
    processor.blank_image_for_text = False
    whole = training_batch(processor, [range(2), range(2, 4)], 3, traced=True)
    half = TrainingBatch(
        [whole.queries[rank]], [whole.targets[rank]], torch.tensor([0, 1]), whole.target_keys[2 * rank :][:2], 3
    )
    wrapped = torch.nn.parallel.DistributedDataParallel(PlumeForTraining(model), find_unused_parameters=True)
    queries, targets = wrapped(half.queries + half.targets, 3)
    loss, terms = batch_losses(queries, targets, half, WEIGHTS)
    loss.backward()
    at_once = gradients(model)
    rows = training_batch(processor, [range(i, i + 1) for i in range(4)], 3, traced=True)
    mine = slice(2 * rank, 2 * rank + 2)
    chunked = TrainingBatch(rows.queries[mine], rows.targets[mine], half.target_of_query, half.target_keys, 3)
    with wrapped.no_sync():
        cached_backward(wrapped, chunked, WEIGHTS)
    average_gradients(wrapped.parameters())
    if rank == 0:
        result = {"gradients": at_once, "gradients in chunks": gradients(model), "terms": terms, "loss": loss.detach()}
        torch.save(result, f"{out}/result.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_gradient_and_the_losses_of_one(released_model_dir, processor, tmp_path):
    torch.multiprocessing.spawn(_two_processes, (str(released_model_dir), str(tmp_path)), nprocs=2)
    result = torch.load(tmp_path / "result.pt")
    model = load(released_model_dir, position_mode="mrope", dtype=torch.float64)
    batch = training_batch(processor, [range(4)], 3, traced=True)
    queries, targets = PlumeForTraining(model)(batch.queries + batch.targets, 3)
    loss, terms = batch_losses(queries, targets, batch, WEIGHTS)
    assert len(set(batch.queries[0].suffix_lengths.tolist())) > 1  # else means of means would be the mean
    loss.backward()
    reference = gradients(model)
    assert_equal_gradients(result["gradients"], reference, 1e-6)  # embeddings are float32
    assert_equal_gradients(result["gradients in chunks"], reference, 1e-6)
    torch.testing.assert_close(result["loss"], 2 * loss.detach())
    for name in ("nce_gen", "nce_anchor", "ce", "balance", "distil", "decode"):
        torch.testing.assert_close(result["terms"][name], terms[name])


def test_a_rollout_read_early_gives_what_a_call_with_fewer_steps_gives_in_any_batch(released_model_dir, processor):
    model = load(released_model_dir).eval()
    items = [case_item(case) for case in CASES[:4]]
    suffix = suffix_text("", None, "after_latents")
    with torch.inference_mode():
        together = run_side(model, make_side(processor, items, [suffix] * 4), 6, (0, 2, 5))
        alone = [run_side(model, make_side(processor, [item], [suffix]), 6, (0, 2, 5)).early for item in items]
        plain = run_side(model, make_side(processor, items, [suffix] * 4), 6)
        for place, steps in enumerate((0, 2, 5)):
            fixed = model(**processor(items), num_latent_steps=steps).embeddings
            torch.testing.assert_close(together.early[:, place], fixed, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.early, torch.cat(alone), atol=1e-5, rtol=0)
    assert plain.early is None and torch.equal(plain.gen, together.gen)
    assert torch.equal(plain.token_losses, together.token_losses)


def test_the_loss_is_the_mean_over_the_places_that_are_read(released_model_dir, processor):
    model = load(released_model_dir, position_mode="mrope").eval()
    found = [direct(model, training_batch(processor, [range(4)], steps)) for steps in (1, 3)]
    both = direct(model, training_batch(processor, [range(4)], 3, (1,)))
    torch.testing.assert_close(both["nce_early"], found[0]["nce_gen"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both["nce_gen"], found[1]["nce_gen"])
    extra = (both["nce_early"] - both["nce_gen"]) / 2
    torch.testing.assert_close(both["loss"] - found[1]["loss"], extra, atol=1e-5, rtol=1e-4)


def test_infonce_is_computed_in_float32_under_autocast():
    generator = torch.Generator().manual_seed(0)
    queries, targets = (F.normalize(torch.randn(64, 32, generator=generator), dim=-1) for _ in range(2))
    positives = torch.eye(64, dtype=torch.bool)
    exact = info_nce(queries, targets, positives, 0.02)
    with torch.autocast("cpu", torch.bfloat16):
        assert (queries @ targets.T).dtype == torch.bfloat16  # what the loss must not do
        torch.testing.assert_close(info_nce(queries, targets, positives, 0.02), exact, rtol=0, atol=0)


def test_equal_targets_are_positives_and_encoded_once(released_model_dir, processor):
    model = load(released_model_dir, position_mode="mrope").eval()
    suffix = ["<eot></think>\n<gen_emb>"]
    texts = ["one", "two", "one"]
    expanded = TrainingBatch(
        [make_side(processor, ["a", "b", "c"], suffix * 3)],
        [make_side(processor, texts, None)],
        torch.tensor([0, 1, 2]),
        torch.tensor([0, 1, 0]),
        1,
    )
    once = TrainingBatch(
        expanded.queries,
        [make_side(processor, texts[:2], None)],
        torch.tensor([0, 1, 0]),
        expanded.target_keys,
        1,
    )
    torch.testing.assert_close(direct(model, expanded)["loss"], direct(model, once)["loss"])


@pytest.mark.parametrize("suffix", ["<eot></think>", "<gen_emb><eot></think>\n<gen_emb>", "<gen_emb>\n"])
def test_a_suffix_without_its_one_embedding_token_at_the_end_is_refused(processor, suffix):
    with pytest.raises(ValueError, match="only <gen_emb>"):
        make_side(processor, ["a"], [suffix])


def test_a_side_that_reads_the_prefix_has_the_single_pass_embedding_and_the_losses_of_its_text(
    released_model_dir, processor
):
    model = load(released_model_dir).eval()
    items, suffix = ["a", {"text": "a red bicycle on a wall"}], ["<eot>It is red.</think>\n<gen_emb>"] * 2
    both = run_side(model, make_side(processor, items, suffix, reads_prefix=True), 0)
    single = run_side(model, make_side(processor, items, None), 0)
    explicit = run_side(model, make_side(processor, items, suffix), 0)
    assert torch.allclose(both.gen, single.gen, atol=1e-6)
    assert not torch.allclose(both.gen, explicit.gen, atol=1e-2)
    assert torch.equal(both.token_losses, explicit.token_losses) and both.token_losses.min() > 0
    assert make_side(processor, items, suffix, reads_prefix=True).to("cpu").reads_prefix
