"""Runs from recipes, at the size of a dry run: stages, resuming, LoRA, settings, and what is refused."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from rich.console import Console
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from plume_embed import PlumeModel, PlumeProcessor
from plume_embed.cli.main import main
from plume_embed.training import checkpoints
from plume_embed.training.dry_run import dry_recipe
from plume_embed.training.log import LOG_FILE, read_log
from plume_embed.training.loss.batch_loss import LossWeights
from plume_embed.training.recipe import LoraSettings, Recipe, load_recipe
from plume_embed.training.recipes import recipe_names
from plume_embed.training.resuming import keep_recipe
from plume_embed.training.run import make_task, run, training_arguments
from plume_embed.training.trainer import PlumeTrainer, load_weights
from training.hops import HOPS

ROOT = Path(__file__).parent.parent.parent


def small(output_dir: Path, **changes) -> Recipe:
    """The dry run of paper_2b with a latent step less a stage, logged at every step."""
    recipe = dry_recipe(load_recipe("paper_2b", [f"output_dir={output_dir}", "curriculum.num_latent_steps=4"]))
    return dataclasses.replace(recipe, logging_steps=1, **changes)


def log_of(folder: str) -> list[dict]:
    return read_log(Path(folder))


def without_clock(entries: list[dict]) -> list[dict]:
    return [{name: value for name, value in entry.items() if name != "pairs_per_second"} for entry in entries]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Recipe:
    """An uninterrupted dry run."""
    recipe = small(tmp_path_factory.mktemp("run") / "whole", save_steps=3)
    run(recipe)
    return recipe


def test_a_dry_run_of_the_papers_recipe_goes_through_all_stages_and_logs_them_by_name(finished):
    entries = log_of(finished.output_dir)
    assert [entry["step"] for entry in entries] == list(range(1, 11))
    assert [entry["stage"] for entry in entries] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [entry["latent_steps"] for entry in entries] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    tokens = [entry["suffix_tokens"] for entry in entries]
    assert tokens[0] > tokens[3] > tokens[5] > tokens[7] > tokens[9]
    for entry in entries:
        assert {"ce", "nce_gen", "nce_anchor", "learning_rate", "pairs_per_second"} <= set(entry)
        assert ("balance" in entry and "router_entropy" in entry) == (entry["stage"] > 0)


def test_a_dry_run_replaces_what_a_dry_run_left_and_no_other_run(tmp_path, capsys):
    out = tmp_path / "paper-dry-run"
    command = ["train", "paper_2b", "--dry-run", "--set", f"output_dir={tmp_path / 'paper'}"]
    command += ["--set", "curriculum.stages=[0]", "--set", "logging_steps=1"]
    for _ in range(2):
        with pytest.raises(SystemExit) as exit_info:
            main(command)
        assert exit_info.value.code == 0, capsys.readouterr().err
        (out / "mine.txt").write_text("put there by hand")
        assert [entry["step"] for entry in log_of(out)] == [1, 2] and (out / "model").is_dir()
    assert (out / "mine.txt").exists()
    recipe = json.loads((out / "recipe.json").read_text())
    (out / "recipe.json").write_text(json.dumps(recipe | {"data": {"files": ["mine.jsonl"]}}))
    before = (out / "data" / "train.jsonl").stat().st_mtime_ns
    with pytest.raises(SystemExit):
        main(command)
    assert "paper-dry-run holds a run that is no dry run; give another output_dir" in capsys.readouterr().err
    assert (out / "results.json").exists() and (out / "data" / "train.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize("setting", ["loss.distil=1.0", "loss.decode=1.0", "curriculum.anytime_steps=[1,2]"])
def test_a_dry_run_of_the_papers_recipe_takes_every_loss_on_the_way(setting, tmp_path):
    """With its layers recomputed, as the recipe has it."""
    recipe = load_recipe("paper_2b", [f"output_dir={tmp_path}", "curriculum.num_latent_steps=4", setting])
    assert recipe.checkpoint_layers
    run(dry_recipe(recipe))
    log = read_log(Path(f"{tmp_path}-dry-run"), having="loss")
    name = {"loss.distil=1.0": "distil", "loss.decode=1.0": "decode"}.get(setting, "nce_early")
    assert name in log[-1] and "nce_early" not in log[0]


def test_losses_of_traces_without_a_latent_step_are_said_to_do_nothing(tmp_path):
    recipe = small(tmp_path / "run", loss=LossWeights(distil=1.0))
    curriculum = dataclasses.replace(recipe.curriculum, stages=(0,), max_steps=1)
    with Console(file=io.StringIO(), width=200) as console:
        run(dataclasses.replace(recipe, curriculum=curriculum), console=console)
    assert "loss.distil and loss.decode do nothing here" in console.file.getvalue()
    assert "The curriculum ends in stage 0 of 4: the model writes the rest" in console.file.getvalue()


def test_a_finished_run_leaves_a_model_that_loads_and_embeds(finished):
    out = Path(finished.output_dir)
    results = json.loads((out / "results.json").read_text())
    assert results["seed"] == 0 and results["recipe"]["curriculum"]["latent_end"] == "after_latents"
    model, processor = PlumeModel.from_pretrained(out / "model").eval(), PlumeProcessor.from_pretrained(out / "model")
    with torch.inference_mode():
        assert model(**processor(["a red square"])).embeddings.shape == (1, 64)
    assert model.config.num_latent_steps == 4


def test_checkpoints_are_safetensors_and_json_only(finished):
    folder = checkpoints.last_checkpoint(Path(finished.output_dir))
    assert folder.name == "checkpoint-10"
    assert {path.name for path in Path(finished.output_dir).glob("checkpoint-*")} == {"checkpoint-9", "checkpoint-10"}
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "optimizer.safetensors", "random-0.safetensors", "trainer_state.json"} <= names
    assert not [name for name in names if Path(name).suffix in (".pt", ".pth", ".bin", ".pkl")]
    assert not list(Path(finished.output_dir).glob(".*"))


def test_a_run_that_was_killed_resumes_to_exactly_the_same_curve_and_weights(finished, tmp_path):
    killed = small(tmp_path / "killed", save_steps=3)
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import torch; torch.set_num_threads(1)
from test_training_run import run, small
run(small(Path({str(tmp_path / "killed")!r}), save_steps=3))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    log, deadline = Path(killed.output_dir) / LOG_FILE, time.monotonic() + 500
    while not (log.exists() and log.read_text().count("\n") >= 5):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (Path(killed.output_dir) / "results.json").exists()
    with pytest.raises(ValueError, match="holds a run already; give --resume"):
        run(killed)
    results = run(killed, resume=True)
    assert results["resumed_from"] in ("checkpoint-3", "checkpoint-6")
    assert without_clock(log_of(killed.output_dir)) == without_clock(log_of(finished.output_dir))
    weights = [load_file(Path(r.output_dir) / "model" / "model.safetensors") for r in (finished, killed)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_run_goes_on_between_two_logs_with_the_log_of_one_that_was_never_interrupted(tmp_path):
    whole, parts = (dataclasses.replace(small(tmp_path / name, save_steps=3), logging_steps=4) for name in "ab")
    run(whole)
    assert [entry["step"] for entry in log_of(whole.output_dir)] == [2, 3, 4, 6, 8, 9, 10]  # saves, stages and fours
    run(parts, stop_after=7)
    assert run(parts, resume=True)["resumed_from"] == "checkpoint-7"
    mine, theirs = (
        [entry for entry in without_clock(log_of(r.output_dir)) if entry["step"] != 7] for r in (parts, whole)
    )
    assert mine[:4] == theirs[:4] and mine[5:] == theirs[5:]
    assert mine[4]["stage"] == theirs[4]["stage"]  # step 8 alone, and the mean of 7 and 8


def test_a_run_goes_on_with_its_own_settings_only(tmp_path):
    recipe = small(tmp_path / "run", save_steps=0)
    run(recipe, stop_after=2)
    others = dataclasses.replace(recipe, seed=recipe.seed + 1, lora=LoraSettings(rank=2))
    with pytest.raises(ValueError, match=r"other settings: .*lora\.rank was None and is 2.*seed was 0 and is 1"):
        run(others, resume=True)
    kept = Path(recipe.output_dir) / "recipe.json"
    kept.rename(tmp_path / "kept.json")
    with pytest.raises(ValueError, match="holds a run and no recipe.json"):
        run(recipe, resume=True)
    (tmp_path / "kept.json").rename(kept)
    saved_more_often = dataclasses.replace(recipe, save_steps=1)
    assert run(saved_more_often, resume=True, stop_after=3)["resumed_from"] == "checkpoint-2"


@pytest.mark.parametrize("trace", ["model", "results.json", "log.jsonl"])
def test_a_run_is_one_by_any_trace_of_it(trace, tmp_path):
    recipe = small(tmp_path / "run", save_steps=0)
    place = Path(recipe.output_dir) / trace
    if trace == "model":
        place.mkdir()
        place.with_name("recipe.json").write_text("{")
    else:
        place.write_text("{}")
    with pytest.raises(ValueError, match="holds a run already; give --resume"):
        run(recipe)
    complaint = "recipe.json is damaged" if trace == "model" else "holds a run and no recipe.json"
    with pytest.raises(ValueError, match=complaint):
        run(recipe, resume=True)


def test_a_recipe_alone_is_of_a_run_that_failed_and_another_may_begin_there(tmp_path):
    recipe = small(tmp_path / "run", save_steps=0)
    (Path(recipe.output_dir) / "recipe.json").write_text("{")
    assert run(recipe, stop_after=1)["stopped_after"] == 1


def test_a_finished_run_without_log_or_checkpoint_is_not_overwritten(tmp_path):
    recipe = small(tmp_path / "run", save_steps=0)
    last = dataclasses.replace(recipe.curriculum, stages=(4,), max_steps=2)
    recipe = dataclasses.replace(recipe, logging_steps=100, curriculum=last)
    results = run(recipe)
    out = Path(recipe.output_dir)
    assert not (out / LOG_FILE).exists() and not list(out.glob("checkpoint-*"))
    with pytest.raises(ValueError, match="holds a run already; give --resume"):
        run(recipe)
    others = dataclasses.replace(recipe, seed=recipe.seed + 1, batch_size=4)
    with pytest.raises(ValueError, match=r"other settings: batch_size was 8 and is 4; seed was 0 and is 1"):
        run(others, resume=True)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with Console(file=io.StringIO(), width=300) as console:
        assert run(recipe, resume=True, console=console) == json.loads(json.dumps(results))
    assert "it has ended: nothing is trained again" in console.file.getvalue()
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_what_fails_in_front_of_the_first_step_is_no_run(tmp_path):
    recipe = small(tmp_path / "run", save_steps=0)
    nowhere = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, files=("/nowhere.jsonl",)))
    with pytest.raises((ValueError, OSError), match="nowhere"):
        run(nowhere)
    assert run(recipe, stop_after=1)["stopped_after"] == 1


def test_weights_of_other_shapes_are_named(tmp_path):
    recipe = small(tmp_path / "run")
    make_task(recipe, 0, 1).make_model().save_pretrained(tmp_path / "saved")
    wider = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, intermediate_size=96))
    with pytest.raises(ValueError, match=r"(?s)model\.safetensors.*has other weights.*size mismatch"):
        load_weights(make_task(wider, 0, 1).make_model(), tmp_path / "saved")


def test_resuming_without_a_checkpoint_begins_anew_and_says_so(tmp_path):
    from rich.console import Console

    recipe, console = small(tmp_path / "run", save_steps=0), Console(record=True, width=300)
    keep_recipe(recipe)
    (Path(recipe.output_dir) / LOG_FILE).write_text('{"step": 1, "loss": 9}\n{"step": 5, "loss": 9}\n')
    results = run(recipe, resume=True, console=console, stop_after=2)
    assert results["resumed_from"] is None
    assert "holds no checkpoint: the run begins anew" in console.export_text()
    assert [entry["step"] for entry in log_of(recipe.output_dir)] == [1, 2]


def test_a_checkpoint_that_was_not_finished_is_not_one(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()

    def write_half() -> None:
        with checkpoints.written_at_once(tmp_path / "checkpoint-12") as partial:
            (partial / "half").write_text("a")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert checkpoints.last_checkpoint(tmp_path).name == "checkpoint-3"
    with checkpoints.written_at_once(tmp_path / "checkpoint-12") as partial:
        (partial / "whole").write_text("b")
    assert checkpoints.last_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    assert [path.name for path in (tmp_path / "checkpoint-12").iterdir()] == ["whole"]


def test_bf16_starts_on_a_cpu_and_follows_float32(finished, tmp_path):
    recipe = small(tmp_path / "bf16", bf16=True, save_steps=0)
    run(recipe)
    half, whole = log_of(recipe.output_dir), log_of(finished.output_dir)
    assert len(half) == len(whole) == 10
    assert half[0]["loss"] == pytest.approx(whole[0]["loss"], rel=0.02) and half[0]["loss"] != whole[0]["loss"]
    assert half[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=0.1)


class MomentWatch(TrainerCallback):
    """Notes, in front of every optimiser step, whether there are moments."""

    def __init__(self):
        self.has_moments = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        entries = [entry for entry in optimizer.state.values() if entry]
        moments = [value for entry in entries for value in entry.values()]
        self.has_moments.append(any(bool(moment.any()) for moment in moments))


def test_a_stage_change_zeroes_the_moments_and_nothing_else_does(tmp_path):
    from rich.console import Console

    recipe, watch = small(tmp_path / "run", save_steps=0), MomentWatch()
    task = make_task(recipe, 0, 1, Console(quiet=True))
    arguments = training_arguments(recipe)
    PlumeTrainer(task.make_model(), arguments, task, recipe.curriculum, recipe.loss, callbacks=[watch]).train()
    assert watch.has_moments == [False, True] * 5


def test_lora_trains_saves_and_reloads(tmp_path):
    from plume_embed.training.efficiency.lora import load_lora

    recipe = small(tmp_path / "run", save_steps=0, lora=LoraSettings(rank=4))
    from rich.console import Console

    base = make_task(recipe, 0, 1, Console(quiet=True)).make_model()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    run(recipe)
    saved = Path(recipe.output_dir) / "model"
    assert (saved / "adapter_model.safetensors").is_file() and not (saved / "model.safetensors").exists()
    merged = load_lora(base, saved)
    assert isinstance(merged, PlumeModel)
    after = merged.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("q_proj" in name for name in changed) and any(name.startswith("adapter.") for name in changed)
    assert not [name for name in changed if "visual" in name or ("norm.weight" in name and "adapter" not in name)]


def test_a_lora_run_that_stopped_goes_on_as_if_it_had_not(tmp_path):
    whole, parts = (small(tmp_path / name, save_steps=3, lora=LoraSettings(rank=4)) for name in "ab")
    run(whole)
    run(parts, stop_after=6)
    assert run(parts, resume=True)["resumed_from"] == "checkpoint-6"
    mine, theirs = (without_clock(log_of(recipe.output_dir)) for recipe in (parts, whole))
    assert mine == theirs
    files = [Path(recipe.output_dir) / "model" / "adapter_model.safetensors" for recipe in (whole, parts)]
    weights = [load_file(file) for file in files]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


class TestRefusals:
    @pytest.mark.parametrize(
        ("setting", "complaint"),
        [
            ("curriculum.stage=[0]", "No such setting: curriculum.stage"),
            ("colour=red", "No such setting: colour"),
            ("seed", "takes KEY=VALUE"),
            ("seed=a", "seed must be of type int"),
            ("seed.x=1", "seed has no keys"),
            ("loss.gen=much", "loss.gen must be a number"),
            ("curriculum.stages=4", "curriculum.stages must be a list"),
            ("batch_size=many", "batch_size must be of type int"),
            ("curriculum.stages=[4,0]", "must ascend"),
            ("loss.anchor=-1", "loss.anchor must be at least 0, got -1"),
            ("loss.gen=.nan", "loss.gen must be at least 0, got nan"),
            ("loss.gen=.inf", "loss.gen must be at least 0 and finite, got inf"),
            ("loss.temperature=.nan", "loss.temperature must be above 0"),
            ("curriculum.warmup=-1", "curriculum.warmup must be at least 0"),
            ("curriculum.decay_share=2", "curriculum.decay_share must lie in 0..1, got 2"),
            ("curriculum.answer_share=-1", "curriculum.answer_share must lie in 0..1"),
            ("curriculum.shares=[0,0,0,0,0]", "curriculum.shares must not all be 0"),
            ("curriculum.shares=[1,1,1,1,-1]", "curriculum.shares must be at least 0"),
            ("curriculum.learning_rates=[0,0,0,0,-1]", "curriculum.learning_rates must be at least 0"),
            ("weight_decay=-1", "weight_decay must be at least 0"),
            ("adam_beta2=1.5", "adam_beta2 must lie in 0..1"),
            ("adam_beta2=1.0", "adam_beta2 must lie in 0..1, below its end, got 1"),
            ("lora.dropout=1", "lora.dropout must lie in 0..1, below its end"),
            ("lora.alpha=0", "lora.alpha must be at least 1"),
            ("loss.false_negative_margin=-3", "loss.false_negative_margin must lie in 0..2, got -3"),
            ("loss.false_negative_margin=.nan", "loss.false_negative_margin must lie in 0..2, got nan"),
            ("data.repeat={I-CLS: x}", "data.repeat must be whole numbers of at least 1, got I-CLS: 'x'"),
            ("data.repeat={I-CLS: 1.5}", "data.repeat must be whole numbers of at least 1, got I-CLS: 1.5"),
            ("data.repeat={I-CLS: 0}", "data.repeat must be whole numbers of at least 1, got I-CLS: 0"),
            ("gates.explicit_hit_at_1=.nan", "gates.explicit_hit_at_1 must lie in 0..1, got nan"),
            ("gates.suffix_ce=.nan", "gates.suffix_ce must be at least 0, got nan"),
            ("gates.gen_nce=-1", "gates.gen_nce must be at least 0"),
            ("gates.explicit_queries=0", "gates.explicit_queries must be at least 1"),
            ("model.hidden_size=0", "model.hidden_size must be at least 1"),
            ("model.initializer_range=.nan", "model.initializer_range must be at least 0"),
            ("seed=4294967296", "seed must lie in 0..4294967295"),
            pytest.param(f"weight_decay=1{'0' * 400}", "weight_decay must be a number", id="a number beyond floats"),
            ("loss.dimensions=[0]", "loss.dimensions must be at least 1"),
        ],
    )
    def test_a_setting_that_cannot_be_is_named(self, setting, complaint):
        with pytest.raises(ValueError, match=complaint.replace("[", r"\[")):
            load_recipe(HOPS, [setting])

    def test_an_unknown_recipe_names_those_there_are(self):
        with pytest.raises(ValueError, match="No recipe 'nothing'; there are pairs, paper_2b"):
            load_recipe("nothing", [])

    def test_settings_are_typed_and_nested(self):
        recipe = load_recipe(HOPS, ["curriculum.stages=[0,4]", "loss.gen=2", "model.plume={adapter_type: mlp}"])
        assert recipe.curriculum.stages == (0, 4) and recipe.loss.gen == 2.0
        assert recipe.model.plume == {"adapter_type": "mlp"}
        assert load_recipe("paper_2b", []).curriculum.learning_rates == (5e-5,) * 5
        assert recipe_names() == ["pairs", "paper_2b", "qwen3_vl_2b"]

    def test_gradient_accumulation_is_refused(self, tmp_path):
        from rich.console import Console

        recipe = small(tmp_path / "run")
        task = make_task(recipe, 0, 1, Console(quiet=True))
        arguments = dataclasses.replace(training_arguments(recipe), gradient_accumulation_steps=2)
        with pytest.raises(ValueError, match="Set chunk_size"):
            PlumeTrainer(task.make_model(), arguments, task, recipe.curriculum, recipe.loss)

    def test_a_data_set_trains_as_the_file_it_was_made_of(self, tmp_path):
        recipe = small(tmp_path / "run")
        saved = str(tmp_path / "saved")
        Dataset.from_json(recipe.data.files[0], cache_dir=str(tmp_path / "cache")).save_to_disk(saved)
        data = dataclasses.replace(recipe.data, files=(), dataset=saved)
        batches = []
        for chosen in (recipe, dataclasses.replace(recipe, data=data)):
            task = make_task(chosen)
            batches.append(task.batch(1, task.curriculum.at(1)))
        assert torch.equal(batches[0].target_keys, batches[1].target_keys)
        for mine, theirs in zip(*(b.queries + b.targets for b in batches), strict=True):
            assert torch.equal(mine.prefix["input_ids"], theirs.prefix["input_ids"])
            assert torch.equal(mine.suffix_ids, theirs.suffix_ids)

    def test_a_missing_medium_is_named_with_its_line(self, tmp_path):
        recipe = small(tmp_path / "run", save_steps=0)
        for path in Path(recipe.data.media_root).glob("*.png"):
            path.unlink()
        with pytest.raises(ValueError, match=r"train\.jsonl:\d+: \w+: No such image file: .*\.png"):
            run(recipe)

    def test_a_missing_medium_of_a_target_is_named_as_well(self, tmp_path):
        task = make_task(small(tmp_path / "run", save_steps=0))
        (Path(task.recipe.data.media_root) / "red.png").unlink()
        retrieval = task.corpus.subsets.index("retrieval")  # its first pair: "a red square" -> red.png
        task.batches = [[retrieval]]
        with pytest.raises(ValueError, match=r"train\.jsonl:\d+: target: No such image file: .*red\.png"):
            task.batch(0, task.curriculum.at(0))

    def test_pictures_in_files_are_not_augmented(self, tmp_path):
        recipe = small(tmp_path / "run")
        with pytest.raises(ValueError, match=r"augment_up_to is for data\.folder"):
            make_task(dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, augment_up_to=50)))

    def test_rows_that_cannot_be_shared_evenly_are_refused(self, tmp_path):
        for recipe in (small(tmp_path / "run"), load_recipe(HOPS, [])):
            with pytest.raises(ValueError, match=r"cannot be shared by 3 processes evenly"):
                make_task(recipe, 0, 3)

    def test_a_dry_run_is_for_a_corpus(self):
        with pytest.raises(ValueError, match="HopsTask is small enough"):
            dry_recipe(load_recipe(HOPS, []))

    def test_a_vocabulary_without_room_for_every_byte_is_refused(self, tmp_path):
        recipe = small(tmp_path / "run")
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, vocab_size=5))
        with pytest.raises(ValueError, match=r"vocab_size must be at least \d+, for every byte"):
            make_task(recipe)

    @pytest.mark.parametrize("reason", [RuntimeError("it is not there."), ImportError("it is not there")])
    def test_a_reporter_that_is_not_installed_is_refused_before_anything_is_read(self, reason, tmp_path, monkeypatch):
        class NotInstalled(TrainerCallback):
            def __init__(self):
                raise reason

        monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", NotInstalled)
        recipe = small(tmp_path / "run", report_to="tensorboard")
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, files=("/nowhere.jsonl",)))
        with pytest.raises(ValueError, match=r"report_to=tensorboard: it is not there\. Install it, or set report_to="):
            run(recipe)
