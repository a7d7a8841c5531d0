"""Ablations: rows that differ in one value, forks that equal unforked runs, a grid that can be started again."""

import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from plume_embed.encode.encoder import fingerprint
from plume_embed.training.log import LOG_FILE, read_log
from plume_embed.training.recipe import Recipe, load_recipe
from plume_embed.training.run import run
from training.ablations import grid as ablations
from training.ablations.archive import archive_of, is_of, read_archive, write_archive
from training.ablations.fork import fork, fork_step, why_not_forked
from training.ablations.grid import Grid, best_rate, chosen_rate, run_one
from training.ablations.rows import (
    ROWS,
    TASKS,
    TUNED_RATES,
    changes_of,
    matched_inner_size,
    recipe_of,
    row_named,
    row_names,
    rows_called,
    with_rate,
    with_segments,
)
from training.ablations.tables import markdown, paired_difference, summarise
from training.hops import HOPS
from training.hops.task import HopsTask

SMALL = ["curriculum.max_steps=10", "curriculum.shares=[2,2,2,2,2]", "curriculum.warmup=2", "batch_size=6"]
SMALL += ["logging_steps=1"]
FORKED = ["full", "no_curriculum", "stages_8", "explicit_cot", "anytime", "jacobi_2", "k_6_dealt"]
# Rows that differ from `full` in the adapter or in one number alone.
FORKED_AS_FULL = ["single_mlp_matched", "no_anchor", "no_shared_expert", "no_step_embedding", "k_4", "stages_2"]


def recipe_named(name: str, out: Path) -> Recipe:
    return recipe_of(row_named(name), "hops", 3, str(out), SMALL)


@pytest.fixture(autouse=True)
def few_queries(monkeypatch):
    """At most forty queries instead of 4,096."""
    whole = HopsTask._evaluate
    monkeypatch.setattr(HopsTask, "_evaluate", lambda self, model, stage, count: whole(self, model, stage, 40))


@pytest.fixture(scope="module")
def trunk(tmp_path_factory) -> Recipe:
    """The first two steps, in stage 0, with the moments of the optimiser that belong to them."""
    recipe = recipe_named("explicit_cot_stage_0", tmp_path_factory.mktemp("trunk") / "trunk")
    with pytest.MonkeyPatch.context() as patch:
        whole = HopsTask._evaluate
        patch.setattr(HopsTask, "_evaluate", lambda self, model, stage, count: whole(self, model, stage, 40))
        run(recipe, stop_after=fork_step(recipe))
    return recipe


@pytest.mark.parametrize(("task", "steps"), [("hops", 8), ("scene_hops", 16)])
def test_any_k_is_any_number_of_steps_below_the_one_of_the_task(task, steps):
    recipe = recipe_of(row_named("anytime"), task, 0, "runs", [])
    assert recipe.curriculum.num_latent_steps == steps
    assert recipe.curriculum.anytime_steps == tuple(range(1, steps))


def steps_of(folder: str) -> list[int]:
    return [entry["step"] for entry in curve(folder) if "loss" in entry]


def curve(folder: str) -> list[dict]:
    entries = read_log(Path(folder))
    return [{name: value for name, value in entry.items() if name != "pairs_per_second"} for entry in entries]


@pytest.mark.parametrize("row", [*FORKED, *(pytest.param(row, marks=pytest.mark.slow) for row in FORKED_AS_FULL)])
def test_a_forked_run_is_the_unforked_run_bit_by_bit(row, trunk, tmp_path):
    alone = recipe_named(row, tmp_path / "alone")
    forked = dataclasses.replace(alone, output_dir=str(tmp_path / "forked"))
    # Nine stages do not fit into ten steps of five equal shares, nor the warm-up into a stage of two.
    if row in ("stages_8", "explicit_cot"):
        alone, forked = (with_steps(recipe, 18) for recipe in (alone, forked))
        trunk = fresh_trunk(with_steps(trunk, 18), tmp_path / "trunk")
    run(alone)
    fork(forked, trunk)
    results = run(forked, resume=True)
    assert results["resumed_from"] == f"checkpoint-{fork_step(trunk)}"
    assert curve(forked.output_dir) == curve(alone.output_dir)
    assert steps_of(alone.output_dir) == list(range(1, alone.curriculum.max_steps + 1))
    weights = [load_file(Path(r.output_dir) / "model" / "model.safetensors") for r in (alone, forked)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    return dataclasses.replace(recipe, curriculum=dataclasses.replace(recipe.curriculum, max_steps=steps))


def fresh_trunk(recipe: Recipe, out: Path) -> Recipe:
    recipe = dataclasses.replace(recipe, output_dir=str(out))
    run(recipe, stop_after=fork_step(recipe))
    return recipe


def test_a_trunk_stops_behind_stage_0_and_is_evaluated_as_explicit_chain_of_thought(trunk):
    results = json.loads((Path(trunk.output_dir) / "results.json").read_text())
    assert "finished" in results and "hit_at_1" in results
    assert [entry["step"] for entry in curve(trunk.output_dir)] == [1, 2]
    assert {entry["stage"] for entry in curve(trunk.output_dir)} == {0}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seed": 4}, "seed differ"),
        ({"batch_size": 7}, "batch_size differ"),
        ({"weight_decay": 0.1}, "weight_decay is not 0"),
        ({"curriculum": {"max_steps": 20}}, "stage 0 does not end at step 2"),
        ({"curriculum": {"stages": (0,), "max_steps": 2}}, "stage 0 does not end at step 2"),
        ({"curriculum": {"stages": (0,), "num_latent_steps": 0}}, "one writes a rationale"),
        ({"curriculum": {"stages": (0,)}, "model": {"plume": {"adapter_type": "none"}}}, "moments are kept"),
        ({"curriculum": {"warmup": 1.0}}, "warmup, learning_rates differ|learning_rates differ|curriculum"),
        ({"curriculum": {"latent_end": "after_latents"}}, "curriculum differ"),
        ({"model": {"hidden_size": 48}}, "model differ"),
    ],
)
def test_a_run_with_another_stage_0_does_not_fork(changes, reason, trunk, tmp_path):
    recipe = recipe_named("full", tmp_path / "other")
    nested = {
        name: dataclasses.replace(getattr(recipe, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    recipe = dataclasses.replace(recipe, **nested)
    with pytest.raises(ValueError, match=reason):
        fork(recipe, trunk)


def test_every_row_that_forks_may_and_the_others_may_not_or_need_not():
    trunk = recipe_of(row_named("full"), "hops", 0, "a", [])
    for row in ROWS:
        reason = why_not_forked(recipe_of(row, "hops", 0, "b", []), trunk)
        assert (reason is None) == row.forks, (row.name, reason)


@pytest.mark.parametrize("task", TASKS)
def test_the_changes_of_a_row_make_its_recipe_where_they_are_given_to_that_of_the_task(task: str):
    for row in ROWS:
        own = ["seed=0", "output_dir=runs", "workers=0"]
        assert load_recipe(TASKS[task], [*changes_of(row, task), *own]) == recipe_of(row, task, 0, "runs", [])
        held = changes_of(row, task, ["loss.distil=0.5"])
        assert load_recipe(TASKS[task], [*held, *own]) == recipe_of(row, task, 0, "runs", ["loss.distil=0.5"])


@pytest.mark.parametrize("task", TASKS)
def test_rows_begin_without_distillation_unless_all_of_them_are_changed(task: str):
    assert recipe_of(row_named("full"), task, 0, "a", []).loss.distil == 0
    assert recipe_of(row_named("full_distilled"), task, 0, "a", []).loss.distil == 1
    held = recipe_of(row_named("parallel"), task, 0, "a", ["loss.distil=1.0"])
    assert held.loss.distil == 1 and held.model.plume["rollout"] == "parallel"


def test_the_recipe_of_scene_hops_is_the_row_that_does_best_there():
    found = load_recipe(TASKS["scene_hops"], ["seed=0", "output_dir=a", "workers=0"])
    assert found == recipe_of(row_named("full_distilled"), "scene_hops", 0, "a", [])
    assert changes_of(row_named("full_distilled"), "scene_hops") == []


def test_rows_are_asked_for_by_name_as_those_of_the_paper_or_all():
    paper = rows_called("paper")
    assert "explicit_cot_stage_0" in paper and not {"anytime", "full_distilled"} & set(paper)
    assert rows_called("all") == row_names() and rows_called("k_4,full") == ["k_4", "full"]
    with pytest.raises(ValueError, match="No row 'k_5'"):
        rows_called("full,k_5")


def test_rows_have_different_names_and_each_differs_from_the_full_model():
    assert len(set(row_names())) == len(ROWS)
    for task, same in (
        ("hops", ["full", "explicit_cot_stage_0", "k_8"]),
        ("scene_hops", ["full", "explicit_cot_stage_0"]),
    ):
        full = recipe_of(row_named("full"), task, 0, "a", [])
        assert [row.name for row in ROWS if recipe_of(row, task, 0, "a", []) == full] == same


def test_the_matched_mlp_has_as_many_parameters_as_the_experts_and_the_router():
    sizes = {}
    for name in ("full", "single_mlp", "single_mlp_matched"):
        model = HopsTask(recipe_of(row_named(name), "hops", 0, "a", [])).make_model()
        sizes[name] = sum(parameter.numel() for parameter in model.adapter.parameters())
    assert sizes["single_mlp"] < 0.25 * sizes["full"]
    assert abs(sizes["single_mlp_matched"] - sizes["full"]) <= 96  # half a unit of inner width is 2 D + 1 over 2
    assert matched_inner_size(96) == 982


def test_fewer_or_more_segments_keep_the_first_stage_the_last_and_the_number_of_steps():
    recipe = load_recipe(HOPS, [])
    for count in (2, 6, 8):
        curriculum = with_segments(recipe, count).curriculum
        ends = curriculum.stage_ends()
        assert (ends[0], ends[-2], ends[-1], len(ends)) == (400, 580, 740, count + 1)
        assert curriculum.latent_steps(count) == 8
        rates = [curriculum.at(step).learning_rate for step in range(ends[0], ends[1])]
        assert max(rates) == pytest.approx(5e-4)  # a short stage comes to its rate as well


class TestGrid:
    def grid(self, out: Path, rows: tuple[str, ...] = ("full", "no_anchor", "explicit_cot_stage_0")) -> Grid:
        return Grid("hops", rows, (3,), out, tuple(SMALL))

    def test_a_grid_trains_what_is_missing_and_leaves_the_rest_alone(self, tmp_path):
        grid = self.grid(tmp_path)
        trunk = grid.recipe("explicit_cot_stage_0", 3)
        assert "Hit@1" in run_one(trunk, None, is_trunk=True)
        half = grid.folder("full", 3)
        half.mkdir(parents=True)
        (half / LOG_FILE).write_text('{"step": 1}\n')  # of a run that was killed
        assert "Hit@1" in run_one(grid.recipe("full", 3), trunk)
        assert steps_of(str(half)) == list(range(1, 11))
        before = (half / "results.json").stat().st_mtime_ns
        assert run_one(grid.recipe("full", 3), trunk) == "full-3: there already"
        assert (half / "results.json").stat().st_mtime_ns == before
        found = list(ablations.finished(grid))
        assert [(row, seed) for row, seed, _ in found] == [("full", 3), ("explicit_cot_stage_0", 3)]

    def test_another_machine_goes_on_from_the_archive_unless_the_recipe_has_changed(self, tmp_path):
        rows = ("single_pass",)
        grid = self.grid(tmp_path / "here", rows)
        run_one(grid.recipe("single_pass", 3), None)
        archive = archive_of(tmp_path / "results.json")
        write_archive(archive, ablations.finished(grid))
        elsewhere = dataclasses.replace(grid, out=tmp_path / "there", archive=archive)
        assert list(ablations.finished(elsewhere)) == list(ablations.finished(grid)) != []
        assert ablations.run_grid(elsewhere, 1, on_done=lambda line: pytest.fail(line)) == []
        changed = dataclasses.replace(elsewhere, settings=(*SMALL, "loss.anchor=0.3"))
        assert list(ablations.finished(changed)) == []

        (_, _, results) = next(ablations.finished(elsewhere))
        del results["recipe"]["data"]["enlarge_to"], results["recipe"]["workers"]  # of before there was such a setting
        write_archive(archive, [("single_pass", 3, results)])
        assert list(ablations.finished(elsewhere)) == [("single_pass", 3, results)]
        results["recipe"]["data"]["a_setting_that_is_gone"] = 1
        write_archive(archive, [("single_pass", 3, results)])
        assert list(ablations.finished(elsewhere)) == []

    def test_a_run_that_began_with_other_files_than_lie_at_its_path_now_is_no_run_of_the_recipe(self, tmp_path):
        base = tmp_path / "base"
        base.mkdir()
        (base / "config.json").write_text("{}")
        recipe = recipe_of(row_named("full"), "scene_hops", 3, str(tmp_path / "run"), [f"model.path={base}"])
        results = {"recipe": as_dict(recipe)}
        assert is_of(results, recipe)  # of before it was written down
        results["began_with"] = fingerprint(base)
        assert is_of(results, recipe)
        (base / "model.safetensors").write_bytes(b"other weights")
        assert not is_of(results, recipe)
        shutil.rmtree(base)
        assert is_of(results, recipe)  # on a machine that has only the archive

    def test_an_archive_keeps_the_runs_that_a_call_is_not_about(self, tmp_path):
        archive = tmp_path / "archive.jsonl"
        write_archive(archive, [("full", 0, {"a": 1}), ("full", 1, {"a": 2})])
        write_archive(archive, [("no_anchor", 0, {"a": 3}), ("full", 1, {"a": 4})])
        assert read_archive(archive) == {("full", 0): {"a": 1}, ("full", 1): {"a": 4}, ("no_anchor", 0): {"a": 3}}

    @pytest.mark.parametrize("asked", [{"task": "hops_mixed"}, {"settings": ["loss.distil=1.0"]}])
    def test_results_of_another_task_or_other_settings_are_not_written_over(self, asked, tmp_path):
        to = tmp_path / "results.json"
        options = {"rows": "full", "seeds": "0", "out": tmp_path / "runs", "to": to, "collect_only": True}
        with pytest.raises(SystemExit) as end:
            ablations.main(**options)
        assert end.value.code == 0
        before = to.read_bytes()
        with pytest.raises(ValueError, match=r"results.json holds results of --task hops; ask with these"):
            ablations.main(**(options | asked))
        assert to.read_bytes() == before

    def test_a_folder_with_a_run_of_another_recipe_is_refused(self, tmp_path):
        grid = self.grid(tmp_path, ("single_pass",))
        run_one(grid.recipe("single_pass", 3), None)
        changed = dataclasses.replace(grid, settings=(*SMALL, "loss.anchor=0.3"))
        for call in (
            lambda: list(ablations.finished(changed)),
            lambda: run_one(changed.recipe("single_pass", 3), None),
        ):
            with pytest.raises(ValueError, match="single_pass-3 holds a run of another recipe; remove it"):
                call()

    def test_a_trial_of_a_row_that_is_not_asked_for_is_passed_over_for_the_archives_run(self, tmp_path):
        to, out = tmp_path / "results.json", tmp_path / "runs"
        grid = dataclasses.replace(self.grid(out), archive=archive_of(to), settings=())
        kept = {row: results_of(0.9, 3) | {"recipe": as_dict(grid.recipe(row, 3))} for row in ("full", "no_anchor")}
        write_archive(archive_of(to), [("full", 3, kept["full"])])
        trial = results_of(0.1, 3) | {"recipe": as_dict(with_steps(grid.recipe("full", 3), 100))}
        for row, results in (("full", trial), ("no_anchor", kept["no_anchor"]), ("single_pass_tuned", trial)):
            grid.folder(row, 3).mkdir(parents=True)
            (grid.folder(row, 3) / "results.json").write_text(json.dumps(results))
        with pytest.raises(SystemExit) as end:  # nothing is missing, so nothing is trained
            ablations.main(seeds="3", rows="no_anchor", out=out, to=to)
        assert end.value.code == 0
        found = json.loads(to.read_text())["rows"]
        assert {row: entry["mean"] for row, entry in found.items()} == {"full": 0.9, "no_anchor": 0.9}
        with pytest.raises(ValueError, match="full-3 holds a run of another recipe; remove it"):
            ablations.main(seeds="3", rows="full", out=out, to=to)

    def test_a_second_call_that_shares_the_folder_of_the_task_is_refused_and_removes_nothing(self, tmp_path):
        grid = self.grid(tmp_path)
        trunk = grid.folder("explicit_cot_stage_0", 3)
        trunk.mkdir(parents=True)
        (trunk / LOG_FILE).write_text('{"step": 1}\n')  # of the first call, which is at work
        with (
            FileLock(grid.folder_of_task / ".lock"),
            pytest.raises(ValueError, match="hops is being trained in by another call; wait until it is done"),
        ):
            ablations.run_grid(grid, 1, lambda line: pytest.fail(line))
        assert (trunk / LOG_FILE).is_file()

    def test_a_trunk_that_another_recipe_made_is_not_gone_on_from(self, trunk, tmp_path):
        folder = shutil.copytree(trunk.output_dir, tmp_path / "trunk")
        results = json.loads((folder / "results.json").read_text())
        results["recipe"]["batch_size"] = 5
        (folder / "results.json").write_text(json.dumps(results))
        with pytest.raises(ValueError, match="holds a run of another recipe"):
            fork(recipe_named("full", tmp_path / "full"), dataclasses.replace(trunk, output_dir=str(folder)))

    def test_the_tuned_rate_is_the_best_on_validation(self, tmp_path):
        grid = self.grid(tmp_path, ("single_pass_tuned",))
        with pytest.raises(ValueError, match="the tuning has not ended"):
            best_rate(grid)
        for index, (rate, recipe) in enumerate(grid.tuning().items()):
            assert recipe.split == "validation" and recipe.seed not in grid.seeds
            assert set(recipe.curriculum.learning_rates) == {rate}
            folder = Path(recipe.output_dir)
            folder.mkdir(parents=True)
            results = {"hit_at_1": [0.1, 0.2, 0.7, 0.3, 0.2][index], "recipe": dataclasses.asdict(recipe)}
            (folder / "results.json").write_text(json.dumps(results))
        assert best_rate(grid) == 2e-3

    def test_the_rate_is_chosen_once_and_stays_for_seeds_that_come_later(self, tmp_path, monkeypatch):
        asked: list[Recipe] = []
        monkeypatch.setattr(ablations, "ProcessPoolExecutor", lambda jobs, **settings: ThreadPoolExecutor(jobs))
        monkeypatch.setattr(ablations, "run_one", lambda recipe, *trunk: asked.append(recipe) or "done")
        archive = archive_of(tmp_path / "results.json")
        grid = dataclasses.replace(self.grid(tmp_path, ("single_pass_tuned",)), archive=archive)
        assert chosen_rate(grid) is None
        (failed,) = ablations.run_grid(grid, 1, lambda line: None)
        assert len(asked) == len(TUNED_RATES) and "the tuning has not ended" in failed
        made_by = with_rate(grid.recipe("single_pass_tuned", 3), 2e-3)
        write_archive(archive, [("single_pass_tuned", 3, {"recipe": dataclasses.asdict(made_by)})])
        asked.clear()
        assert ablations.run_grid(dataclasses.replace(grid, seeds=(4,)), 1, lambda line: None) == []
        assert [recipe.seed for recipe in asked] == [4] and set(asked[0].curriculum.learning_rates) == {2e-3}


def as_dict(recipe: Recipe) -> dict:
    """As a run's results.json has it."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def results_of(hit: float, seed: int) -> dict:
    curriculum = {"max_steps": 10, "learning_rates": [1e-3]}
    return {
        "recipe": {"curriculum": curriculum},
        "seed": seed,
        "hit_at_1": hit,
        "hit_at_1_by_presses": {"1": hit, "2": hit / 2},
        "parameters": 5,
        "train_minutes": 1.0,
        "train_cpu_minutes": 1.0,
        "device": "cpu",
        "torch": "2",
    }


def test_a_paired_difference_is_over_the_seeds_that_both_have():
    difference = paired_difference({0: 0.5, 1: 0.7, 2: 0.9, 9: 0.0}, {0: 0.4, 1: 0.5, 2: 0.6, 8: 1.0})
    assert difference["seeds"] == [0, 1, 2]
    assert difference["mean"] == pytest.approx(0.2)
    # Student's t for 2 degrees of freedom is 4.3027; the standard deviation 0.1
    assert difference["high"] - difference["mean"] == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert difference["low"] == pytest.approx(2 * 0.2 - difference["high"])
    assert paired_difference({0: 0.5}, {0: 0.25}) == {"mean": 0.25, "low": None, "high": None, "seeds": [0]}
    assert paired_difference({0: 0.5}, {1: 0.25}) is None


def test_the_table_has_means_differences_and_seeds():
    runs = [("full", s, results_of(hit, s)) for s, hit in enumerate((0.98, 1.0))]
    runs += [("no_anchor", s, results_of(hit, s)) for s, hit in enumerate((0.90, 0.94))]
    results = summarise("hops", runs)
    row = results["rows"]["no_anchor"]
    assert row["mean"] == pytest.approx(0.92) and row["hit_at_1_by_presses"]["2"] == pytest.approx(0.46)
    assert row["difference_to_full"]["mean"] == pytest.approx(-0.07)
    line = markdown(results).splitlines()[-1]
    assert line.startswith("| 3 | router without anchor | 92.0 | -7.0 (-19.7 to +5.7) | 90.0 94.0 | 92 46 | 60.1 |")


def test_the_table_of_a_task_with_families_shows_them_instead_of_presses():
    run = results_of(0.9, 0) | {"hit_at_1_by_family": {"film": 0.8, "walk": 1.0}}
    head, _, line = markdown(summarise("hops_mixed", [("full", 0, run)])).splitlines()
    assert "| by seed | by family: film, walk |" in head and "| 90.0 | 80 100 |" in line


def test_an_unknown_row_is_named():
    with pytest.raises(ValueError, match="No row 'half'; there are full,"):
        row_named("half")
