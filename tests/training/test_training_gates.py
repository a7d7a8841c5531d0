"""Early gates: each warns once, at its own moment, and only where its threshold is missed."""

import dataclasses
from pathlib import Path

import pytest
import torch

from plume_embed.training.curriculum import Curriculum
from plume_embed.training.gates import Gates, GateSettings
from plume_embed.training.log import read_log
from plume_embed.training.recipe import load_recipe
from plume_embed.training.run import make_task, run
from training.hops import HOPS

CURRICULUM = Curriculum(max_steps=200, shares=(1, 1, 1, 1, 1), num_segments=4)  # a stage is 40 steps
ALL = GateSettings(explicit_hit_at_1=0.95, suffix_ce=0.15, gen_nce=1.0, gen_nce_steps=30)


def warnings(settings: GateSettings, ce, gen, curriculum: Curriculum = CURRICULUM) -> dict[int, list[str]]:
    """Warnings by step of a run whose terms are functions of the step."""
    gates, found = Gates(settings, curriculum), {}
    for step in range(curriculum.max_steps):
        terms = {"ce": torch.tensor(ce(step)), "nce_gen": torch.tensor(gen(step))}
        if messages := gates.after(step, terms):
            found[step] = messages
    return found


def test_a_run_that_goes_well_warns_of_nothing():
    assert warnings(ALL, lambda step: 0.1, lambda step: 0.5) == {}


def test_without_thresholds_nothing_is_watched():
    assert warnings(GateSettings(), lambda step: 9.0, lambda step: 9.0) == {}
    assert not any(Gates(GateSettings(), CURRICULUM).wants_explicit(step) for step in range(200))


def test_suffix_cross_entropy_is_judged_at_the_end_of_each_middle_stage_by_its_last_ten_steps():
    late = warnings(ALL, lambda step: 0.1 if step % 40 >= 30 else 5.0, lambda step: 0.5)
    assert late == {}
    found = warnings(ALL, lambda step: 0.2 if 80 <= step < 120 else 0.1, lambda step: 0.5)
    assert list(found) == [119] and "stage 2 ended at step 120" in found[119][0] and "0.200" in found[119][0]
    assert list(warnings(ALL, lambda step: 1.0, lambda step: 0.5)) == [79, 119, 159]  # not stage 0, not the last


def test_generative_infonce_has_so_many_steps_of_the_last_stage():
    found = warnings(ALL, lambda step: 0.1, lambda step: 2.0)
    assert list(found) == [189] and "lowest 2.00 at step 190" in found[189][0]
    once = warnings(ALL, lambda step: 0.1, lambda step: 0.2 if 170 <= step < 182 else 3.0)
    assert once == {}
    too_late = warnings(ALL, lambda step: 0.1, lambda step: 3.0 if step < 185 else 0.2)
    assert list(too_late) == [189]


def test_a_run_that_goes_on_within_the_last_stage_does_not_judge_what_it_has_not_seen():
    gates = Gates(ALL, CURRICULUM)
    terms = {"ce": torch.tensor(0.1), "nce_gen": torch.tensor(2.0)}
    assert [warning for step in range(185, 200) for warning in gates.after(step, terms)] == []


def test_a_last_stage_that_is_shorter_than_its_gate_is_judged_at_its_end():
    settings = dataclasses.replace(ALL, gen_nce_steps=500)
    assert list(warnings(settings, lambda step: 0.1, lambda step: 2.0)) == [199]


def test_explicit_chain_of_thought_is_evaluated_behind_stage_0_only():
    gates = Gates(ALL, CURRICULUM)
    assert [step for step in range(200) if gates.wants_explicit(step)] == [40]
    assert gates.explicit(40, 0.96) == []
    assert "with 95.0 % Hit@1" in gates.explicit(40, 0.95)[0]
    text = {"num_latent_steps": 0, "single_pass_text": True}
    for other in ({"stages": (0,)}, {"num_latent_steps": 0}, text):
        never = Gates(ALL, dataclasses.replace(CURRICULUM, **other))
        assert not any(never.wants_explicit(step) for step in range(200))


def test_a_run_logs_its_warnings_and_keeps_them_in_its_results(tmp_path, monkeypatch):
    from training.hops.task import HopsTask

    whole, counts = HopsTask._evaluate, []

    def few(self, model, stage, count):
        counts.append((stage, count))
        return whole(self, model, stage, 20)

    monkeypatch.setattr(HopsTask, "_evaluate", few)
    settings = ["curriculum.max_steps=10", "curriculum.shares=[2,2,2,2,2]", "batch_size=6", "workers=0"]
    recipe = load_recipe(HOPS, [*settings, f"output_dir={tmp_path / 'run'}", "gates.explicit_queries=16"])
    results = run(recipe)
    assert counts == [(0, 16), (None, 4096)]
    assert [message.split()[:2] for message in results["warnings"]] == [
        ["stage", "0"],
        ["stage", "1"],
        ["stage", "2"],
        ["stage", "3"],
        ["generative", "InfoNCE"],
    ]
    entries = read_log(Path(recipe.output_dir))
    assert [entry["step"] for entry in entries if "warning" in entry] == [3, 4, 6, 8, 10]


def test_gates_change_nothing_that_is_computed_so_a_run_may_go_on_with_others(tmp_path, monkeypatch):
    from training.hops.task import HopsTask

    whole = HopsTask._evaluate
    monkeypatch.setattr(HopsTask, "_evaluate", lambda self, model, stage, count: whole(self, model, stage, 20))
    settings = ["curriculum.max_steps=8", "curriculum.shares=[2,2,2,1,1]", "batch_size=6", "workers=0"]
    settings += ["save_steps=4", "logging_steps=1"]
    gated = load_recipe(HOPS, [*settings, f"output_dir={tmp_path / 'gated'}"])
    free = dataclasses.replace(gated, output_dir=str(tmp_path / "free"), gates=GateSettings())
    run(gated)
    run(free, stop_after=5)
    run(dataclasses.replace(free, gates=gated.gates), resume=True)
    losses = [
        [entry["loss"] for entry in read_log(Path(recipe.output_dir)) if "loss" in entry] for recipe in (gated, free)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 8


def test_a_corpus_has_no_explicit_gate(tmp_path):
    recipe = load_recipe("paper_2b", ["gates.explicit_hit_at_1=0.9", "data.files=[a.jsonl]"])
    with pytest.raises(ValueError, match="set it to null"):
        make_task(recipe)
