"""FSDP2 and DeepSpeed in two processes on CPUs: the curve of DDP, also where only one process has pictures."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from plume_embed.training.dry_run import dry_recipe
from plume_embed.training.efficiency.layer_checkpoint import checkpoint_layers
from plume_embed.training.efficiency.sharded import missing_media
from plume_embed.training.log import read_log
from plume_embed.training.objective import PlumeForTraining
from plume_embed.training.recipe import load_recipe
from plume_embed.training.run import run
from plume_embed.training.trainer import zero_moments
from training.hops import HOPS, HOPS_MIXED
from training.hops.task import HopsTask

ROOT = Path(__file__).parent.parent.parent
SETTINGS = ["curriculum.max_steps=10", "curriculum.shares=[2,2,2,2,2]", "workers=0", "logging_steps=1"]
SETTINGS += ["gates.explicit_hit_at_1=null", "save_steps=3"]
FSDP = {  # what `accelerate launch` sets for the README's command
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}
NAMES = ("loss", "grad_norm", "nce_gen", "nce_anchor", "ce")
# One row a process: in nearly every step they hold a film and a text, or a picture and a text.
ONE_ROW = (HOPS_MIXED, "batch_size=2")
# Two rows: also a film and a picture in one process, and two texts in the other.
TWO_ROWS = (HOPS_MIXED, "batch_size=4")
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="pip install deepspeed")


def train(
    out: Path, strategy: str, task: str, *settings: str, resume: bool = False, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Trains in two processes by "ddp", "fsdp" or "deepspeed"."""
    script = [str(ROOT / "tests" / "fsdp_on_cpu.py")] if strategy == "fsdp" else ["-m", "plume_embed", "train"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *script, task]
    for setting in (*SETTINGS, f"output_dir={out}", *settings):
        command += ["--set", setting]
    own = {"ddp": {}, "fsdp": FSDP, "deepspeed": {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu"}}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # DeepSpeed calls ninja
    # What the shell around the tests tells accelerate is not theirs.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "FSDP_"))}
    variables = kept | {"OMP_NUM_THREADS": "1", "PATH": path} | own[strategy] | (environment or {})
    return subprocess.run(
        command + ["--resume"] * resume, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=500
    )


def curve(out: Path, strategy: str, task: str, *settings: str, **kwargs) -> list[dict[str, float]]:
    """What [`train`] logged, without the clock."""
    done = train(out, strategy, task, *settings, **kwargs)
    assert done.returncode == 0, done.stderr[-3000:]
    entries = read_log(out)
    return [{name: entry[name] for name in ("step", *NAMES)} for entry in entries if "loss" in entry]


def assert_same(mine: list[dict], theirs: list[dict]) -> None:
    assert [entry["step"] for entry in theirs] == list(range(1, 11))
    for name in NAMES:
        assert [entry[name] for entry in theirs] == pytest.approx([entry[name] for entry in mine], rel=1e-4), name


def zero_config(folder: Path, stage: int = 2, **sections) -> dict[str, str]:
    """The environment that `accelerate launch --use_deepspeed --deepspeed_config_file` makes."""
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage}, **sections}
    (folder / "zero.json").write_text(json.dumps(config))
    return {"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(folder / "zero.json")}


def resumed(whole: Path, strategy: str, task: str, *settings: str, **kwargs) -> list[dict[str, float]]:
    """The curve of a run that lost its last checkpoint and everything behind it, and went on."""
    out = whole.with_name("resumed")
    shutil.copytree(whole, out)
    for name in ("checkpoint-10", "model"):
        shutil.rmtree(out / name)
    (out / "results.json").unlink()
    entries = curve(out, strategy, task, *settings, resume=True, **kwargs)
    assert json.loads((out / "results.json").read_text())["resumed_from"] == "checkpoint-9"
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (whole, out)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    return entries


@pytest.mark.slow
def test_fsdp_trains_along_the_curve_of_ddp_where_one_process_has_pictures_and_one_has_none(tmp_path):
    """The saved model is whole, evaluated as such, and checkpoints are the same safetensors as without FSDP."""
    ddp, fsdp = (curve(tmp_path / strategy, strategy, *ONE_ROW) for strategy in ("ddp", "fsdp"))
    assert_same(ddp, fsdp)
    models = [load_file(tmp_path / strategy / "model" / "model.safetensors") for strategy in ("ddp", "fsdp")]
    assert models[0].keys() == models[1].keys()
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, rtol=0, atol=2e-4)
    found = [sorted(path.name for path in (tmp_path / s / "checkpoint-9").iterdir()) for s in ("ddp", "fsdp")]
    assert found[0] == found[1] and not any(name.endswith((".bin", ".pt", ".pth")) for name in found[1])
    results = [json.loads((tmp_path / strategy / "results.json").read_text()) for strategy in ("ddp", "fsdp")]
    assert results[1]["hit_at_1"] == pytest.approx(results[0]["hit_at_1"], abs=0.01)
    assert results[0]["sharded_modules"] == 0
    assert results[1]["sharded_modules"] >= 3 + 1 + 1  # decoder layers, vision blocks, the whole


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [("batch_size=8", "chunk_size=2", "checkpoint_layers=true"), ("batch_size=8", "lora={rank: 4, alpha: 8}")],
    ids=["in chunks, layers recomputed", "LoRA"],
)
def test_fsdp_trains_along_the_curve_of_ddp_with(tmp_path, settings):
    assert_same(*(curve(tmp_path / strategy, strategy, HOPS, *settings) for strategy in ("ddp", "fsdp")))


@pytest.mark.slow
def test_fsdp_goes_on_from_a_folder_with_a_frozen_tower_along_the_curve_of_ddp(tmp_path):
    """As `paper_2b` starts on GPUs: the first process alone reads the weights, the others get them from it."""
    dry = dry_recipe(load_recipe("paper_2b", [f"output_dir={tmp_path / 'paper'}"]))
    run(dry)
    folder = Path(dry.output_dir)
    settings = (f"model.path={folder / 'model'}", f"data.files=[{folder / 'data' / 'train.jsonl'}]", "bf16=false")
    settings += (f"data.media_root={folder / 'data'}", "batch_size=4", "chunk_size=2")
    assert_same(*(curve(tmp_path / strategy, strategy, "paper_2b", *settings) for strategy in ("ddp", "fsdp")))


@pytest.mark.slow
def test_fsdp_resumes_to_exactly_the_same_curve_and_weights(tmp_path):
    whole = curve(tmp_path / "whole", "fsdp", *ONE_ROW)
    assert resumed(tmp_path / "whole", "fsdp", *ONE_ROW) == whole


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [ONE_ROW, TWO_ROWS, (HOPS, "batch_size=8", "chunk_size=2", "checkpoint_layers=true")],
    ids=["one row a process", "two rows a process", "in chunks, layers recomputed"],
)
def test_deepspeed_stage_2_trains_along_the_curve_of_ddp_and_resumes_exactly(tmp_path, task):
    zero = {"environment": zero_config(tmp_path)}
    whole = curve(tmp_path / "whole", "deepspeed", *task, **zero)
    assert_same(curve(tmp_path / "ddp", "ddp", *task), whole)
    assert resumed(tmp_path / "whole", "deepspeed", *task, **zero) == whole


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"stage": 3}, "Use stage 2, or FSDP"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}}, "a section optimizer"),
        ({"gradient_clipping": 5.0}, "clips gradients at 5.0"),
    ],
    ids=["stage 3", "an optimiser", "another clipping"],
)
def test_a_deepspeed_config_that_trains_otherwise_is_refused(tmp_path, sections, message):
    done = train(tmp_path / "out", "deepspeed", *ONE_ROW, environment=zero_config(tmp_path, **sections))
    assert done.returncode != 0 and message in done.stderr, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "environment", "message"),
    [
        ("ddp", {"ACCELERATE_MIXED_PRECISION": "bf16"}, "mixed precision bf16, the recipe says no"),
        ("ddp", FSDP, "FSDP was asked for, but accelerate would run MULTI_CPU"),
        ("fsdp", {"FSDP_VERSION": "1", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}, "fsdp_version 2"),
        ("fsdp", {"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "set checkpoint_layers instead"),
    ],
    ids=["another precision", "FSDP without accelerators", "FSDP 1", "FSDP's own checkpointing"],
)
def test_it_is_refused(tmp_path, strategy, environment, message):
    done = train(tmp_path / "out", strategy, *ONE_ROW, environment=environment)
    assert done.returncode != 0 and message in done.stderr, done.stderr[-2000:]


@pytest.mark.slow
def test_chunks_in_different_numbers_are_refused_where_the_processes_share_the_weights(tmp_path, released_model_dir):
    """They would wait for each other for ever."""
    rows = [{"query": f"number {n}", "positive": f"the number {n}"} for n in range(16)]
    for row in rows[:3]:
        row["negatives"] = [f"not {row['positive']}"]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [f"data.files=[{tmp_path / 'pairs.jsonl'}]", f"model.path={released_model_dir}", "batch_size=8"]
    settings += ["chunk_size=4", "curriculum.num_latent_steps=1", "curriculum.shares=[1,1,1,1,1]"]
    done = train(tmp_path / "out", "fsdp", "pairs", *settings, "early_stopping=null")
    assert done.returncode != 0 and "set chunk_size to null" in done.stderr, done.stderr[-2000:]


@pytest.mark.slow
def test_evaluating_between_two_steps_is_refused_where_no_process_has_all_weights(tmp_path):
    done = train(tmp_path / "out", "fsdp", HOPS, "batch_size=8", "gates.explicit_hit_at_1=0.9")
    assert done.returncode != 0 and "gates.explicit_hit_at_1" in done.stderr


def test_moments_and_steps_are_zeroed_whether_they_are_counted_in_tensors_or_numbers():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones(2)
    optimizer.step()
    optimizer.state[weight]["step"] = 7  # as DeepSpeed's Adams have it
    assert optimizer.state[weight]["exp_avg"].any()
    zero_moments(optimizer)
    assert optimizer.state[weight]["step"] == 0
    assert not optimizer.state[weight]["exp_avg"].any() and not optimizer.state[weight]["exp_avg_sq"].any()


@pytest.fixture(scope="module")
def task() -> HopsTask:
    return HopsTask(load_recipe(HOPS, []))


@pytest.mark.parametrize("given", [[], ["image"], ["video"], ["image", "video"]], ids=" and ".join)
def test_the_vision_tower_runs_twice_whatever_media_a_side_holds(task, given):
    """Once for images and once for videos; a blank adds nothing and gives every weight of the tower a gradient."""
    model = task.make_model()
    pixels = {"image": "pixel_values", "video": "pixel_values_videos"}
    calls = []
    model.backbone.visual.register_forward_hook(lambda *_: calls.append(1))
    ids = {"input_ids": torch.ones(1, 1, dtype=torch.long)}
    nothing = missing_media(model, ids | {pixels[kind]: torch.zeros(1) for kind in given})
    assert nothing.item() == 0.0 and len(calls) == 2 - len(given)
    if len(given) < 2:
        nothing.backward()
        assert all(p.grad is not None and not p.grad.any() for p in model.backbone.visual.parameters())


def test_what_fsdp_shards_one_by_one_is_found_with_and_without_recomputed_layers(task):
    model = task.make_model()
    assert PlumeForTraining(model)._no_split_modules == ["Qwen2VLDecoderLayer", "Qwen2VLVisionBlock"]
    checkpoint_layers(model)
    layers = model.backbone.language_model.layers
    assert type(layers[0]).__name__ == "Qwen2VLDecoderLayer"
    assert all(isinstance(layer, type(layers[0])) for layer in layers)
