"""Latent steps beside the written rationale: which part each stands for, distillation, and decoding."""

import pytest
import torch
import torch.nn.functional as F

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.training.curriculum import Curriculum, TraceText
from plume_embed.training.latents.branches import behind
from plume_embed.training.latents.traces import (
    TraceLosses,
    decoding_losses,
    distillation_losses,
    explicit_states,
    make_trace,
    traces_of,
)
from plume_embed.training.loss.batch_loss import LossWeights
from plume_embed.training.objective import make_side, run_side
from plume_embed.training.recipe import load_recipe
from plume_embed.training.tasks import make_task
from training.ablations.fork import why_not_forked
from training.ablations.rows import recipe_of, row_named
from training.hops import HOPS

RATIONALES = ["It is red. It has two wheels. So it is a bicycle. Found.", "A cat.", ""]
ITEMS = ["what is red?", {"text": "what is this?"}, "nothing"]


@pytest.fixture(scope="module")
def processor(released_model_dir):
    return PlumeProcessor.from_pretrained(released_model_dir)


@pytest.fixture(scope="module")
def model(released_model_dir):
    return PlumeModel.from_pretrained(released_model_dir, position_mode="mrope", dtype=torch.float64).eval()


@pytest.mark.parametrize("latent_end", ["after_latents", "after_rationale"])
@pytest.mark.parametrize("stage", [1, 2, 4])
def test_the_parts_are_what_the_steps_of_a_stage_replace(processor, latent_end, stage):
    curriculum = Curriculum(max_steps=100, num_latent_steps=4, latent_end=latent_end)
    state = curriculum.at(curriculum.stage_ends()[stage - 1] if stage else 0)
    text = curriculum.trace(RATIONALES[0], state)
    assert len(text.parts) == state.num_latent_steps == stage
    remaining = curriculum.suffix(RATIONALES[0], None, state).replace("<eot>", "")
    assert ("".join(text.parts) + " " * (stage < 4) + remaining).replace("  ", " ") == text.suffix.replace("<eot>", "")
    trace = make_trace(processor, [text], TraceLosses(True, True))
    tokens, end = trace.token_ids[0], 0
    for part, (first, behind_last) in zip(text.parts, trace.spans[0].tolist(), strict=True):
        begin, end = end, end + len(part)  # a token may reach over the border, and is of the part that it begins in
        places = [len(processor.tokenizer.decode(tokens[:at])) - text.start for at in (first, behind_last - 1)]
        assert begin <= places[0] <= places[1] < end
    assert tokens[-1] == processor.special_token_ids()["embedding_token_id"]


def test_without_steps_or_without_a_weight_there_is_no_trace(processor):
    curriculum = Curriculum(max_steps=100)
    assert traces_of(processor, curriculum, curriculum.at(0), RATIONALES, TraceLosses(True, True)) is None
    assert traces_of(processor, curriculum, curriculum.at(99), RATIONALES, TraceLosses(False, False)) is None
    trace = traces_of(processor, curriculum, curriculum.at(99), RATIONALES, TraceLosses(False, True))
    assert trace is not None and trace.spans.shape == (3, 8, 2) and (trace.spans[2] == trace.spans[2, 0, 0]).all()


def test_a_tokenizer_that_cannot_say_where_its_tokens_lie_is_refused(processor, monkeypatch):
    monkeypatch.setattr(type(processor.tokenizer), "is_fast", False)
    with pytest.raises(ValueError, match="need a fast tokenizer"):
        make_trace(processor, [TraceText("a", 0, ("a",))], TraceLosses(True, False))


@torch.no_grad()
def test_the_distance_is_from_the_states_of_the_written_rationale(model, processor):
    curriculum = Curriculum(max_steps=100, num_latent_steps=3)
    trace = traces_of(processor, curriculum, curriculum.at(99), RATIONALES, TraceLosses(True, False))
    side = make_side(processor, ITEMS, ["<eot></think>\n<gen_emb>"] * 3)
    prefix = model.prefix(**side.prefix)
    latents, _ = model.latents(prefix, 3)
    gen = torch.randn_like(prefix.z0)
    found = distillation_losses(latents, gen, explicit_states(model, prefix, trace), trace)
    for row, rationale in enumerate(RATIONALES):
        text = curriculum.trace(rationale, curriculum.at(99))
        alone = model.prefix(**make_side(processor, [ITEMS[row]], None).prefix)
        ids = torch.tensor([processor.tokenizer.encode(text.suffix, add_special_tokens=False)])
        states = model.suffix(alone, 0, ids)[0]
        own = [z[row] for z in latents]
        pairs = [(own[k], states[end - 1]) for k, (start, end) in enumerate(trace.spans[row].tolist()) if end > start]
        pairs.append((gen[row], states[-1]))
        wanted = [F.smooth_l1_loss(a / b.square().mean().sqrt(), b / b.square().mean().sqrt()) for a, b in pairs]
        assert len(wanted) == (1 if not rationale else 1 + sum(bool(part) for part in text.parts))
        assert found[row].item() == pytest.approx(torch.stack(wanted).mean().item(), abs=1e-5)


@torch.no_grad()
def test_a_rollout_that_has_the_states_of_its_rationale_has_no_distance(model, processor):
    curriculum = Curriculum(max_steps=100, num_latent_steps=2)
    trace = traces_of(processor, curriculum, curriculum.at(99), RATIONALES[:1], TraceLosses(True, False))
    prefix = model.prefix(**make_side(processor, ITEMS[:1], None).prefix)
    states = explicit_states(model, prefix, trace)
    same = [states[:, end - 1] for _, end in trace.spans[0].tolist()]
    last = states[:, -1]
    assert distillation_losses(same, last, states, trace).abs().max() == 0
    assert distillation_losses([same[0], -same[1]], last, states, trace).min() > 0.1


@torch.no_grad()
def test_a_part_is_decoded_from_its_own_step_and_nothing_else(model, processor):
    curriculum = Curriculum(max_steps=100, num_latent_steps=3)
    trace = traces_of(processor, curriculum, curriculum.at(99), RATIONALES, TraceLosses(False, True))
    latents = list(torch.randn(3, 3, model.config.get_text_config().hidden_size, dtype=torch.float64))
    found = decoding_losses(model, latents, trace)
    embed = model.get_input_embeddings()
    for row in range(3):
        losses = []
        for step, (start, end) in enumerate(trace.spans[row].tolist()):
            tokens = trace.token_ids[row, start:end]
            if len(tokens) == 0:
                continue
            embeds = torch.cat((latents[step][row][None], embed(tokens[:-1])))[None]
            positions = model.family.to_backbone_positions(torch.arange(len(tokens)).expand(1, 3, -1))
            mask = torch.ones(1, len(tokens), dtype=torch.long)
            hidden = model.backbone(inputs_embeds=embeds, attention_mask=mask, position_ids=positions).last_hidden_state
            losses.append(F.cross_entropy(model.next_token_logits(hidden[0]), tokens, reduction="none"))
        wanted = torch.cat(losses).mean().item() if losses else 0.0
        assert found[row].item() == pytest.approx(wanted, abs=1e-5)


def test_a_batch_without_any_rationale_runs_the_same_modules_and_has_no_loss(model, processor, monkeypatch):
    """Of several processes with sharded weights each has to call them equally often."""
    curriculum = Curriculum(max_steps=100, num_latent_steps=2)
    latents = [torch.randn(2, model.config.get_text_config().hidden_size, dtype=torch.float64) for _ in range(2)]
    calls, extend = [], PlumeModel.extend
    monkeypatch.setattr(PlumeModel, "extend", lambda self, *a, **k: calls.append(1) or extend(self, *a, **k))
    found = {}
    for name, rationales in (("none", ["", ""]), ("some", [RATIONALES[0], ""])):
        trace = traces_of(processor, curriculum, curriculum.at(99), rationales, TraceLosses(False, True))
        found[name] = decoding_losses(model, latents, trace)
    assert len(calls) == 2
    assert found["none"].tolist() == [0, 0] and found["some"][0] > 0 and found["some"][1] == 0


def test_both_losses_reach_the_steps_and_leave_the_explicit_states_alone(model, processor):
    curriculum = Curriculum(max_steps=100, num_latent_steps=2)
    trace = traces_of(processor, curriculum, curriculum.at(99), RATIONALES[:1], TraceLosses(True, True))
    prefix = model.prefix(**make_side(processor, ITEMS[:1], None).prefix)
    states = explicit_states(model, prefix, trace).detach().requires_grad_()
    latents = [z.detach().requires_grad_() for z in model.latents(behind(prefix, 0), 2)[0]]
    gen = prefix.z0.detach().requires_grad_()
    distillation_losses(latents, gen, states, trace).sum().backward()
    assert states.grad is None and all(each.grad.abs().sum() > 0 for each in (*latents, gen))
    latents = [z.detach().requires_grad_() for z in latents]
    decoding_losses(model, latents, trace).sum().backward()
    assert all(z.grad.abs().sum() > 0 for z in latents)


def test_a_trace_adds_its_tokens_to_what_is_supervised_where_it_distils(model, processor):
    curriculum = Curriculum(max_steps=100, num_latent_steps=2)
    side = make_side(processor, ITEMS, ["<eot></think>\n<gen_emb>"] * 3)
    plain = run_side(model, side, 2)
    for distils in (False, True):
        side.trace = traces_of(processor, curriculum, curriculum.at(99), RATIONALES, TraceLosses(distils, True))
        output = run_side(model, side, 2)
        extra = side.trace.lengths if distils else 0
        assert side.supervised_tokens.tolist() == (side.suffix_lengths + extra).tolist()
        assert (output.token_losses > plain.token_losses).all() == distils and (output.distil is None) != distils
        torch.testing.assert_close(output.gen, plain.gen, atol=1e-6, rtol=0)


def test_a_trace_that_is_not_rehearsed_is_no_text(model, processor):
    curriculum = Curriculum(max_steps=100, num_latent_steps=2)
    side = make_side(processor, ITEMS, ["<eot></think>\n<gen_emb>"] * 3)
    plain = run_side(model, side, 2)
    found = {}
    for rehearses in (False, True):
        asked = TraceLosses(True, False, rehearses)
        side.trace = traces_of(processor, curriculum, curriculum.at(99), RATIONALES, asked)
        found[rehearses] = run_side(model, side, 2)
        assert (side.supervised_tokens > side.suffix_lengths).all() == rehearses
    torch.testing.assert_close(found[False].token_losses, plain.token_losses, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[False].distil, found[True].distil, atol=1e-6, rtol=0)


@torch.no_grad()
def test_steps_or_the_embedding_are_held_alone_where_that_is_asked(model, processor):
    curriculum = Curriculum(max_steps=100, num_latent_steps=2)
    prefix = model.prefix(**make_side(processor, ITEMS, None).prefix)
    found, states, latents, gen = {}, None, torch.randn(2, *prefix.z0.shape).unbind(), torch.randn_like(prefix.z0)
    for what in ("all", "steps", "embedding"):
        asked = TraceLosses(True, False, distil_to=what)
        trace = traces_of(processor, curriculum, curriculum.at(99), RATIONALES, asked)
        states = explicit_states(model, prefix, trace) if states is None else states
        found[what] = distillation_losses(latents, gen, states, trace)
    parts = torch.tensor([(trace.spans[row, :, 1] > trace.spans[row, :, 0]).sum() for row in range(3)])
    assert parts.tolist()[2] == 0 and found["steps"][2] == 0  # nothing to be held to
    whole = (parts * found["steps"] + found["embedding"]) / (parts + 1)
    torch.testing.assert_close(found["all"], whole, atol=1e-6, rtol=0)


def test_an_unknown_part_to_hold_is_named():
    with pytest.raises(ValueError, match="distil_to is all, steps or embedding, got 'anchor'"):
        LossWeights(distil_to="anchor")
    with pytest.raises(ValueError, match="distil_to"):
        load_recipe(HOPS, ["loss.distil_to=anchor"])


@pytest.mark.parametrize("part", ["loss.distil_to=steps", "loss.rehearse=false"])
def test_parts_of_a_distillation_that_there_is_not_are_refused(part):
    with pytest.raises(ValueError, match="are parts of loss.distil, which is 0"):
        load_recipe(HOPS, [part])
    assert load_recipe(HOPS, [part, "loss.distil=1.0"]).loss.distil == 1


@pytest.mark.parametrize("row", ["distilled", "stages_6_decoded", "k_4_decoded"])
def test_the_rows_of_the_ablation_hold_steps_to_the_rationale_and_share_stage_0(row):
    recipe = recipe_of(row_named(row), "hops", 0, "runs/a", ["batch_size=4"])
    full = recipe_of(row_named("full"), "hops", 0, "runs/b", ["batch_size=4"])
    assert why_not_forked(recipe, full) is None
    task, last = make_task(recipe, 0, 1), recipe.curriculum.max_steps - 1
    (queries,) = task.batch(last, recipe.curriculum.at(last)).queries
    assert queries.trace.losses == TraceLosses(row == "distilled", row != "distilled")
    sizes = (queries.trace.spans[..., 1] - queries.trace.spans[..., 0]).tolist()
    assert sizes == [[2] * 4 if row == "k_4_decoded" else [1] * 8] * 4


def test_pairs_have_no_rationales_to_be_held_to(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"query": "a", "positive": "b"}\n')
    for name in ("distil", "decode"):
        recipe = load_recipe("pairs", [f"loss.{name}=1.0", f"data.files=[{tmp_path / 'a.jsonl'}]", "model.path=x"])
        with pytest.raises(ValueError, match="need rationales"):
            make_task(recipe, 0, 1)
    assert load_recipe(HOPS, []).loss.distil == 0
