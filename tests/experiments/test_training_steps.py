"""The diagnostics of the latent steps: what they read from models and sets, and the tables of the committed results."""

import dataclasses
import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from common import random_item
from typer.testing import CliRunner

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.evaluation.miniature.schema import Query, Side, Task, write_media, write_tasks
from plume_embed.training.latents.causal import other_queries
from training.ablations.rows import recipe_of, row_named
from training.ablations.tables import summarise
from training.hops import hops, mixed
from training.steps import cost, curve, summary, tables, variants
from training.steps import diagnose as script
from training.steps.diagnose import diagnose, hits, mean_of
from training.steps.sets import DiagnosticSet, Loaded, named_pictures, of_checkpoint, sampled

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def entry(released_model_dir) -> dict:
    model = PlumeModel.from_pretrained(released_model_dir, num_latent_steps=3).eval()
    rng = random.Random(1)
    items = [random_item(rng) for _ in range(6)]
    asked = DiagnosticSet("themselves", items, items, [[n] for n in range(6)], 3, [1, 1, 2, 2, 3, 3])
    return diagnose(Loaded("random", model, PlumeProcessor.from_pretrained(released_model_dir), [asked]), asked)


def test_items_find_themselves_by_every_read_out_and_their_own_latents_take_nothing_away(entry):
    assert list(entry["read_outs"]) == ["anchor", "z(0)", "z(1)", "z(2)", "z(3)", "embedding"]
    assert all(found["same"][0] == 1 for found in entry["read_outs"].values())
    assert [found[0] for found in entry["after_step"]["hit"]] == [1, 1, 1, 1]
    assert entry["after_step"]["by_depth"] == {"1": [1.0] * 4, "2": [1.0] * 4, "3": [1.0] * 4}
    assert entry["causal"]["as they are"]["cosine"] == pytest.approx(1, abs=1e-5)
    assert entry["causal"]["as they are"]["difference"] == [0, 0, 0] and entry["chance"] == pytest.approx(1 / 6)
    assert len(entry["similarities"]["between_steps"]) == 4 and entry["document_latent_steps"] == 3


def test_a_hit_is_the_nearest_candidate_among_the_right_ones_and_its_interval_holds_the_mean():
    queries, candidates = torch.eye(3), torch.eye(3)[[1, 0, 2]]
    found = hits(queries, candidates, [[1], [1, 0], [0]])
    assert found.tolist() == [1, 1, 0]
    mean, low, high = mean_of(np.array([1.0, 0.0] * 50))
    assert low < mean == 0.5 < high


def test_a_query_is_ranked_among_the_candidates_of_its_own_pool_and_chance_is_the_pools(released_model_dir):
    queries, candidates = torch.eye(3), torch.eye(3)[[1, 0, 2]]
    assert hits(queries, candidates, [[0], [1], [0]]).tolist() == [0, 0, 0]
    assert hits(queries, candidates, [[0], [1], [0]], [[0, 2], [1, 2], [0, 2]]).tolist() == [1, 1, 0]
    model = PlumeModel.from_pretrained(released_model_dir, num_latent_steps=2).eval()
    rng = random.Random(1)
    items = [random_item(rng) for _ in range(4)]
    asked = DiagnosticSet("in pools", items, items, [[0], [1], [0], [1]], 2, pools=[[0, 2], [1, 2, 3], [0], [1]])
    found = diagnose(Loaded("random", model, PlumeProcessor.from_pretrained(released_model_dir), [asked]), asked)
    assert found["pool"] == [1, 3] and found["chance"] == pytest.approx((1 / 2 + 1 / 3 + 1 + 1) / 4)
    assert found["read_outs"]["embedding"]["embedding"][0] == 1.0  # of two the pool leaves the right one alone


def test_the_miniatures_tasks_keep_their_pools_and_a_sample_is_drawn_from_all_of_them(tmp_path):
    sides = tuple(Side(text=word) for word in ("a red clip", "a blue clip", "a green clip", "a black clip"))
    queries = (Query(Side(text="green"), (2,), (1, 2, 3)), Query(Side(text="red"), (0,), (0, 1)))
    write_tasks([Task("V-RET/text to clip hard", "known", queries, sides)], tmp_path)
    write_media({"clips/unused": [b""]}, tmp_path, "clips")  # a miniature without media would be refused
    loaded = of_checkpoint(ROOT / "checkpoints" / "plume-tiny", ROOT / "examples", tmp_path, None, 2)
    (asked,) = [found for found in loaded.sets if found.name == "V-RET/text to clip hard"]
    assert asked.pools == [[1, 2, 3], [0, 1]] and asked.gold == [[2], [0]]
    assert other_queries(asked.gold, asked.pools).tolist() == [1, 0]  # neither's answer is in the other's pool
    assert len(sampled(1000, 10)) == 10 and sampled(1000, 10) != list(range(10)) and sampled(3, 10) == [0, 1, 2]


def test_latents_come_from_a_query_whose_answer_can_be_found_in_ones_own_pool():
    gold, pools = [[0], [1], [2], [0]], [[0, 2, 3], [1, 0], [2], [0, 1, 2]]
    assert other_queries(gold, pools).tolist() == [2, 3, 3, 1]
    with pytest.raises(ValueError, match="no other with another answer"):
        other_queries([[0], [0]], [[0, 1], [0, 1]])


def test_the_depth_of_a_query_is_the_place_of_its_last_press():
    rng = random.Random(3)
    for query in [hops.draw(rng) for _ in range(40)] + [mixed.draw(rng) for _ in range(40)]:
        depth = query.depth
        states = query.states
        assert len(set(states[depth - 1 :])) == 1  # nothing happens behind it
        assert query.num_presses <= depth <= 8


def test_named_pictures_are_searched_by_their_names():
    drawings, photographs = (named_pictures(ROOT / "examples" / name, 8) for name in ("", "photographs"))
    assert len(drawings.queries) == len(drawings.candidates) == 160 and "banana" in drawings.queries
    assert "abandoned house" in photographs.queries
    assert all(file.is_file() for file in [*drawings.candidates, *photographs.candidates])


def test_the_command_keeps_what_it_has_found(released_model_dir, tmp_path, monkeypatch):
    pictures, to = tmp_path / "pictures", tmp_path / "found.json"
    pictures.mkdir()
    for name in ("cat.jpg", "airplane.jpg", "canyon.jpg"):
        shutil.copy(ROOT / "examples" / "photographs" / name, pictures / name)
    arguments = ["--checkpoint", str(released_model_dir), "--pictures", str(pictures), "--json", str(to)]
    app, command = CliRunner(), typer.Typer()
    command.command()(script.main)
    assert app.invoke(command, arguments, catch_exceptions=False).exit_code == 0
    ((key, found),) = json.loads(to.read_text()).items()
    assert key == "names -> pictures/released_tiny"
    with monkeypatch.context() as patch:
        patch.setattr(script, "diagnose", lambda *_: pytest.fail("it was there"))
        assert app.invoke(command, arguments, catch_exceptions=False).exit_code == 0
    (pictures / "canyon.jpg").rename(pictures / "a valley.jpg")
    assert app.invoke(command, arguments, catch_exceptions=False).exit_code == 0
    (again,) = json.loads(to.read_text()).values()
    assert again["digest"] != found["digest"] and again["weights"] == found["weights"]


def test_a_run_that_the_file_has_need_not_be_there(tmp_path, entry, capsys):
    to, folder = tmp_path / "found.json", tmp_path / "hops" / "full-0"
    to.write_text(json.dumps({"hops/full-0": entry}))
    script.main(run=[folder], to=to, queries=2)
    assert capsys.readouterr().out.startswith("hops/full-0: Hit@1 ")
    with pytest.raises(ValueError, match="has not ended"):
        script.main(run=[folder], to=to, queries=2, anew=True)
    to.write_text(json.dumps({"scene_hops/full-0": entry}))
    with pytest.raises(ValueError, match="has not ended"):  # its second set is not in the file
        script.main(run=[tmp_path / "scene_hops" / "full-0"], to=to, queries=2)


def test_latents_come_from_the_query_that_a_set_names_where_it_names_one(released_model_dir):
    model = PlumeModel.from_pretrained(released_model_dir, num_latent_steps=2).eval()
    rng = random.Random(1)
    items = [random_item(rng) for _ in range(4)]
    asked = DiagnosticSet("themselves", items, items, [[n] for n in range(4)], 2)
    loaded = Loaded("random", model, PlumeProcessor.from_pretrained(released_model_dir), [asked])
    found = {
        name: diagnose(loaded, dataclasses.replace(asked, others=others))["causal"]["another query"]["cosine"]
        for name, others in (("next", None), ("named next", [1, 2, 3, 0]), ("own", [0, 1, 2, 3]))
    }
    assert found["own"] == pytest.approx(1, abs=1e-5) and found["next"] == found["named next"] < 1 - 1e-4


def test_seeds_share_a_row_with_students_interval_and_one_model_has_its_own(entry):
    def seed(number: int, hit: float) -> dict:
        causal = entry["causal"] | {
            "noise": {"hit": [0, 0, 0], "difference": [hit, 0, 0], "follows": 0.5, "cosine": 0.5}
        }
        return entry | {"set": "hops", "model": f"full-{number}", "causal": causal}

    results = {"a": seed(0, -0.2), "b": seed(1, -0.4), "c": entry}
    assert {name: len(found) for name, found in tables.groups(results).items()} == {
        "hops, full": 2,
        "themselves, random": 1,
    }
    half = 12.706 * 0.1  # Student's t of one degree of freedom, times the standard error
    row = next(line for line in tables.causal(results).splitlines() if line.startswith("| hops"))
    assert f"-30.0 [{-30 - 100 * half:.1f}, {-30 + 100 * half:+.1f}]" in row
    for render in (tables.read_outs, tables.causal, tables.likeness):
        lines = render(results).splitlines()
        assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("full", (9, 1)),
        ("targets_with_steps", (9, 9)),
        ("k_6_dealt", (7, 1)),
        ("single_pass", (1, 1)),
        ("parallel", (1, 1)),
        ("pause", (1, 1)),
        ("jacobi_3", (4, 1)),
    ],
)
def test_a_query_takes_a_pass_for_its_prefix_and_one_for_each_step_or_sweep(name, found):
    assert variants.passes(recipe_of(row_named(name), "hops", 0, "a", [])) == found


def test_a_model_that_writes_has_no_number_of_passes():
    with pytest.raises(ValueError, match="the model writes"):
        variants.passes(recipe_of(row_named("explicit_cot"), "hops", 0, "a", []))


def test_the_variants_stand_beside_the_full_model_with_their_cost_and_are_drawn(tmp_path):
    hits = {"full": (0.9, 1.0), "parallel": (0.1, 0.2), "jacobi_2": (0.5, 0.6)}
    runs = [
        (
            name,
            seed,
            {"hit_at_1": hit, "hit_at_1_by_presses": {"1": hit}, "parameters": 9, "device": "cpu", "torch": "2"}
            | {"train_cpu_minutes": 1.0, "recipe": {"curriculum": {"max_steps": 1, "learning_rates": []}}},
        )
        for name, of in hits.items()
        for seed, hit in enumerate(of)
    ]
    results = json.loads(json.dumps(summarise("hops", runs)))
    lines = variants.markdown(results).splitlines()
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| full | 9, 1 | 9 | 2 | 95.0 |  |")
    assert "| K learned tokens in one pass | 1, 1 | 9 | 2 | 15.0 | -80.0 (-80.0 to -80.0) |" in lines[3]
    assert "Jacobi, T = 1" in variants.not_run(results) and "Jacobi, T = 2" not in variants.not_run(results)
    drawn = variants.write_plot(results, tmp_path / "a.svg").read_text()
    labels = re.findall(r"<!-- (.*?)\s*-->", drawn, re.DOTALL)
    assert set(hits) <= {name for label in labels for name in re.split(r", |\n", label)}


def test_points_that_lie_together_share_a_label():
    found = variants.labels([(9, 99.0, "a"), (9, 97.0, "b"), (9, 40.0, "c"), (1, 10.0, "d")], apart=14)
    assert found == [(1, [10.0], ["d"]), (9, [99.0, 97.0], ["a", "b"]), (9, [40.0], ["c"])]


def test_the_pareto_line_leaves_out_what_costs_more_and_finds_less():
    assert variants.pareto([(9, 0.9), (1, 0.1), (1, 0.2), (4, 0.15), (3, 0.5)]) == [(1, 0.2), (3, 0.5), (9, 0.9)]


def test_a_curve_is_the_mean_over_seeds_after_each_number_of_steps(entry, tmp_path):
    assert entry["after_step"]["within_depth"] == [None, 1.0, 1.0, 1.0]
    found = {}
    for seed, hits_of in enumerate(([0.0, 0.5, 1.0], [0.5, 0.5, 0.5])):
        after = {"hit": [[hit, 0.0, 1.0] for hit in hits_of], "within_depth": [None, *hits_of[1:]]}
        found[f"hops/full-{seed}"] = {"set": "hops", "model": f"full-{seed}", "after_step": after}
        found[f"other/full-{seed}"] = found[f"hops/full-{seed}"] | {"set": "other"}
    assert curve.curves(found, "hops") == {"full": [25.0, 50.0, 75.0]}
    assert curve.curves(found, "hops", "within_depth") == {"full": [None, 50.0, 75.0]}
    assert "| full | 25.0 | 50.0 / 50.0 | 75.0 / 75.0 |" in curve.markdown(found)
    drawn = curve.write_plot(found, [of_rows("hops", full=0.99, k_2=0.12)], tmp_path / "curve.svg").read_text()
    assert "<!-- full, read after K steps, 2 seeds -->" in drawn
    assert "<!-- best row that was trained for this K alone, 1 seed -->" in drawn


def of_rows(task: str, settings: Sequence[str] = (), **means: float) -> dict:
    """Results as the grid writes them, of one seed a row."""
    runs = [
        (
            name,
            0,
            {"hit_at_1": mean, "hit_at_1_by_presses": {"1": mean}, "parameters": 9, "device": "cpu", "torch": "2"}
            | {"train_cpu_minutes": 1.0, "recipe": {"curriculum": {"max_steps": 1, "learning_rates": []}}},
        )
        for name, mean in means.items()
    ]
    return json.loads(json.dumps(summarise(task, runs, settings)))


def test_the_best_row_of_a_k_is_one_that_was_trained_for_it_alone_and_reads_behind_its_steps():
    ours = of_rows("hops", full=0.93, stages_6_dealt=0.999, k_4_decoded=0.16, anytime=1.0, jacobi_4=1.0, pause=1.0)
    theirs = of_rows("hops", full=0.99, k_4=0.11, single_pass_tuned=0.1, explicit_cot=1.0, explicit_cot_stage_0=1.0)
    best = curve.best_by_step_count([ours, theirs], "hops")
    assert {steps: row["mean"] for steps, row in best.items()} == {0: 0.1, 4: 0.16, 8: 0.999}
    with pytest.raises(ValueError, match="give --ablations results on hops"):
        curve.best_by_step_count([ours, of_rows("scene_hops", full=0.1)], "hops")


def test_passes_are_those_of_the_settings_that_the_results_were_made_with():
    results = of_rows("hops", ["curriculum.num_latent_steps=4"], full=0.5)
    assert variants.markdown(results).splitlines()[-1].startswith("| full | 5, 1 |")


def test_the_cost_of_each_way_to_spend_passes_is_measured_beside_a_single_pass():
    names = cost.variants("hops")
    assert {"single_pass", "full", "k_4", "parallel", "jacobi_2"} <= set(names)
    assert not {"anytime", "distilled", "stages_6_dealt"} & set(names)  # as `full`
    found = cost.measure("hops", ["single_pass", "full"], 1, 4)
    assert found["single_pass"]["ratio"] == 1.0 and found["full"]["ratio"] > 1.5
    lines = cost.markdown({"passes": {"single_pass": 1, "full": 9}, "batches": {"1": found, "64": found}}).splitlines()
    assert lines[2].count("1.00 (1.00 to 1.00)") == 2 and lines[3].startswith("| full | 9 |")


def in_column(results: dict, row: str, **figures) -> dict:
    """The results with a mean, an interval to its negative and a number of seeds of a row."""
    found = results["rows"][row]
    seeds, low = figures.get("seeds", 5), figures.get("low")
    found["runs"] = {str(seed): {"hit_at_1": found["mean"] + seed / 1000} for seed in range(seeds)}
    found["difference_to_full"] = {"mean": low, "low": low, "high": low and -low}
    return results


def test_a_row_stands_once_with_its_mean_on_every_task_from_the_first_file_that_has_it():
    ours, theirs = of_rows("hops", full=0.9, anytime=0.8, k_4=0.1), of_rows("hops", full=0.5, no_anchor=0.5, k_2=0.2)
    scenes = in_column(of_rows("scene_hops", full=0.9, k_2=0.3), "k_2", low=-0.5)
    for results, row, low, seeds in (
        (ours, "full", 0.0, 5),
        (ours, "anytime", -0.25, 3),
        (ours, "k_4", None, 1),
        (theirs, "no_anchor", -0.1, 5),
        (theirs, "k_2", -0.5, 5),
    ):
        in_column(results, row, low=low, seeds=seeds)
    assert summary.markdown({"hops": [ours, theirs], "scene_hops": [scenes]}).splitlines() == [
        "| | hops | scene_hops |",
        "|---|---|---|",
        "| full | 90.0 | 90.0, 1 seed |",
        "| router without anchor | 50.0 (-10.0 to +10.0) |  |",
        "| K = 2 | 20.0 (-50.0 to +50.0) | 30.0 (-50.0 to +50.0) |",
        "| K = 4 | 10.0, 1 seed |  |",
        "| K = 8 | 90.0 |  |",  # on hops that is `full`
        "| any K: the loss also read behind two of 1 to K - 1 steps | 80.0 (-25.0 to +25.0), 3 seeds |  |",
    ]


def test_a_cell_whose_run_stands_under_another_name_or_in_another_column_is_not_empty():
    plain = of_rows("scene_hops", full=0.1, single_pass=0.2, distilled=0.3, full_held=0.4)
    held = of_rows("scene_hops", ["loss.distil=1.0"], full=0.8, no_curriculum=0.5)
    for results, row in ((plain, "full_held"), (held, "full")):
        in_column(results, row, seeds=3)
    lines = summary.markdown({"plain": [plain], "held": [held]}).splitlines()
    cells = {label: [*others] for _, label, *others, _ in ([c.strip() for c in line.split("|")] for line in lines)}
    assert cells["single pass, as many training steps"] == ["20.0, 1 seed"] * 2  # has no steps to hold
    assert cells["without curriculum: stage 0, then straight to the last"] == ["", "50.0, 1 seed"]
    assert cells["full, each step held to the states of the written rationale"] == ["80.0, 3 seeds"] * 2
    named = "full, each step held to the states of the written rationale, which is not trained to the end"
    assert cells[named][1] == "40.0 (-40.0 to -40.0), 3 seeds"  # to the `full` of its column
    assert cells["stage 0, then all steps at once, held to the states of the written rationale"] == [
        "30.0, 1 seed",
        "50.0, 1 seed",
    ]


def test_the_table_of_every_row_has_all_rows_with_a_run():
    lines, tasks = summary.markdown(summary.read_all()).splitlines()[2:], summary.read_all()
    run = {row["label"] for own in tasks.values() for results in own for row in results["rows"].values()}
    assert run <= {line.split("|")[1].strip() for line in lines}


@pytest.mark.parametrize(("task", "rate"), [("hops", 3e-3), ("scene_hops", 5e-4)])
def test_a_pause_is_learned_at_the_rate_at_which_the_task_begins(task, rate):
    assert recipe_of(row_named("pause"), task, 0, "a", []).curriculum.learning_rates == (rate,) * 5


@pytest.mark.parametrize("name", ["full", "single_pass"])
def test_longer_stages_are_three_times_as_long_and_nothing_else(name):
    longer, own = (recipe_of(row_named(row), "scene_hops", 0, "a", []) for row in (f"{name}_longer", name))
    curriculum = dataclasses.replace(own.curriculum, max_steps=3 * own.curriculum.max_steps)
    assert longer == dataclasses.replace(own, curriculum=curriculum)


def test_rows_of_the_ablations_stand_beside_the_variants_where_these_lack_them():
    own = {"task": "hops", "rows": {"full": "a", "anytime": "b"}}
    others = {"task": "hops", "rows": {"full": "c", "k_2": "d", "top_1": "e"}}
    assert variants.with_compared(own, others)["rows"] == {"full": "a", "k_2": "d", "anytime": "b"}


def test_rows_of_another_task_do_not_stand_beside_the_variants():
    with pytest.raises(ValueError, match=r"on hops: give --ablations .* training/ablations/results/scene_hops.json"):
        variants.with_compared(of_rows("scene_hops", full=0.5), of_rows("hops", k_2=0.1))


def test_curves_of_pictures_are_of_sets_that_both_models_were_read_on():
    def entry_of(name: str, model: str, *hits: float) -> dict:
        return {"set": name, "model": model, "after_step": {"hit": [[hit, 0, 1] for hit in hits]}}

    entries = [entry_of("a", "plume-tiny", 0.1, 0.5), entry_of("a", "plume-tiny-anytime", 0.4, 0.5)]
    found = curve.of_pictures(dict(enumerate([*entries, entry_of("b", "plume-tiny", 1, 1)])))
    assert found == {"a": {"plume-tiny": [10.0, 50.0], "plume-tiny-anytime": [40.0, 50.0]}}
    lines = curve.markdown_of_pictures(found).splitlines()
    assert lines[0] == "| | | K = 0 | K = 1 |" and lines[3] == "| a | plume-tiny-anytime | 40.0 | 50.0 |"
