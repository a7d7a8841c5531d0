"""Whole runs of `train pairs` on bad rows, damaged pictures, wrong settings and broken checkpoints, by the command."""

import shutil
from pathlib import Path

import pytest
from command_line import Damage, Ended, call, mutated, removed, write_pairs, written
from limits import part_slow

QUICK = ("batch_size=2", "curriculum.max_steps=2", "curriculum.num_latent_steps=1", "early_stopping.every=1")
CHECKPOINT = "run/checkpoint-2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pairs(tmp_path, 6)


def train(capsys, folder: Path, model: Path, *settings: str, options: tuple = ()) -> Ended:
    own = (f"data.files=[{folder / 'pairs.jsonl'}]", f"model.path={model}", f"output_dir={folder / 'run'}")
    words = [word for setting in (*own, *QUICK, *settings) for word in ("--set", setting)]
    return call(capsys, "train", "pairs", *words, *options)


DATA: dict[str, tuple[Damage, str]] = {
    "no file": (removed("pairs.jsonl"), r"pairs\.jsonl"),
    "no rows": (mutated("pairs.jsonl", "empty"), r"pairs\.jsonl"),
    "half a row": (mutated("pairs.jsonl", "cut-at-nine-tenths"), r"pairs\.jsonl:6: "),
    "zeros": (mutated("pairs.jsonl", "all-zero"), r"pairs\.jsonl:1: "),
    "another key": (written("pairs.jsonl", b'{"question": "a"}\n'), r"pairs\.jsonl:1: .*question"),
    "no picture": (removed("2.png"), r"pairs\.jsonl:3: .*2\.png"),
}
PICTURES: dict[str, tuple[Damage, str]] = {
    "half a picture": (mutated("2.png", "cut-at-a-third"), r"pairs\.jsonl:3: positive: .*2\.png"),
    "a picture of zeros": (mutated("4.png", "all-zero"), r"pairs\.jsonl:5: positive: .*4\.png"),
}


@pytest.mark.parametrize("name", part_slow(list(DATA), 2))
def test_damaged_pairs_are_named_by_train(name: str, folder: Path, released_model_dir: Path, capsys):
    damage, pattern = DATA[name]
    damage(folder)
    train(capsys, folder, released_model_dir).assert_refused(pattern)
    assert not (folder / "run" / "model").exists()


@pytest.mark.parametrize("name", PICTURES)
def test_a_damaged_picture_is_named_with_its_row(name: str, folder: Path, released_model_dir: Path, capsys):
    damage, pattern = PICTURES[name]
    damage(folder)
    settings = ("pairs.held_out=0", "batch_size=6", "early_stopping=null")
    train(capsys, folder, released_model_dir, *settings).assert_refused(pattern)


@pytest.mark.parametrize("name", PICTURES)
def test_a_damaged_picture_that_is_held_out_is_named_with_its_row(name: str, folder: Path, released_model_dir, capsys):
    damage, pattern = PICTURES[name]
    damage(folder)
    (folder / "words.jsonl").write_text("".join(f'{{"query": "{n}", "positive": "number {n}"}}\n' for n in range(4)))
    settings = (f"data.files=[{folder / 'words.jsonl'}]", f"pairs.held_out_files=[{folder / 'pairs.jsonl'}]")
    train(capsys, folder, released_model_dir, *settings).assert_refused(pattern)


SETTINGS: dict[str, tuple[str, str]] = {
    "an unknown key": ("batchsize=2", "No such setting: batchsize"),
    "an unknown inner key": ("pairs.holdout=0.2", r"No such setting: pairs\.holdout"),
    "another type": ("batch_size=many", "batch_size must be of type int"),
    "no value": ("batch_size", "--set takes KEY=VALUE"),
    "no key": ("=3", "--set"),
    "no YAML": ("batch_size=[1", "batch_size"),
    "a key of a number": ("batch_size.x=1", "batch_size has no keys"),
    "no pair in a batch": ("batch_size=0", "batch_size"),
    "no rows in a chunk": ("chunk_size=0", "chunk_size"),
    "fewer than no step": ("curriculum.max_steps=-1", "max_steps"),
    "fewer than no latent step": ("curriculum.num_latent_steps=-1", "num_latent_steps"),
    "no steps between logs": ("logging_steps=0", "logging_steps"),
    "no steps between evaluations": ("early_stopping.every=0", r"early_stopping\.every"),
    "an unknown number": ("early_stopping.metric=recall", r"early_stopping\.metric.*hit_at_1"),
    "no patience": ("early_stopping.patience=0", r"early_stopping\.patience"),
    "no temperature": ("loss.temperature=0", r"loss\.temperature"),
    "a seed below zero": ("seed=-1", "seed"),
    "no model": ("model.path=/nowhere/at/all", "/nowhere/at/all"),
    "another task": ("task=triples", "triples"),
    "another reporter": ("report_to=nobody", "nobody"),
    "steps below zero": ("pairs.sampled_steps=[-1]", r"pairs\.sampled_steps"),
    "too many dimensions": ("pairs.truncate=[0]", r"pairs\.truncate"),
    "no rank": ("lora={rank: 0}", r"lora\.rank"),
    "a rate that explodes": ("curriculum.learning_rates=[0,0,0,0,1e30]", "learning rate"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_settings_are_named(name: str, folder: Path, released_model_dir: Path, capsys):
    setting, pattern = SETTINGS[name]
    train(capsys, folder, released_model_dir, setting).assert_refused(pattern)


@pytest.mark.parametrize(
    "text", ["", "5", "- 1", "task: [", "\tx: 1", "task: pairs\nbatch_size: {", "\0", "a: &a [*a]"], ids=repr
)
def test_a_recipe_that_is_none_is_named(text: str, tmp_path: Path, capsys):
    (tmp_path / "mine.yaml").write_text(text)
    for options in ((), ("--set", "batch_size=2")):
        call(capsys, "train", tmp_path / "mine.yaml", *options).assert_refused(r"mine\.yaml")


CHECKPOINTS: dict[str, tuple[Damage, str]] = {
    "no weights": (removed(f"{CHECKPOINT}/model.safetensors"), r"model\.safetensors"),
    "half of the weights": (mutated(f"{CHECKPOINT}/model.safetensors", "cut-at-a-third"), r"checkpoint-2"),
    "weights of zeros": (mutated(f"{CHECKPOINT}/model.safetensors", "all-zero"), r"checkpoint-2"),
    "no state": (removed(f"{CHECKPOINT}/trainer_state.json"), r"trainer_state\.json"),
    "half a state": (mutated(f"{CHECKPOINT}/trainer_state.json", "cut-at-a-third"), r"trainer_state\.json"),
    "a state of nothing": (written(f"{CHECKPOINT}/trainer_state.json", "{}"), r"trainer_state\.json"),
    "no moments": (removed(f"{CHECKPOINT}/optimizer.safetensors"), r"optimizer\.safetensors"),
    "half of the moments": (mutated(f"{CHECKPOINT}/optimizer.safetensors", "cut-at-a-third"), r"checkpoint-2"),
    "no random state": (removed(f"{CHECKPOINT}/random-0.safetensors"), "checkpoint-2"),
    "half a random state": (mutated(f"{CHECKPOINT}/random-0.safetensors", "cut-at-nine-tenths"), "checkpoint-2"),
    "a log of another form": (written("run/log.jsonl", "{\n{}\n"), r"log\.jsonl:1"),
    "a log of numbers": (written("run/log.jsonl", "5\n6\n"), r"log\.jsonl:1"),
    "half of the scores before": (mutated("run/before.json", "cut-at-a-third"), r"before\.json"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, released_model_dir: Path) -> Path:
    """A folder with pairs and a run that stopped behind its second step."""
    from plume_embed.training.recipe import load_recipe
    from plume_embed.training.run import run

    where = write_pairs(tmp_path_factory.mktemp("stopped"), 6)
    own = [f"data.files=[{where / 'pairs.jsonl'}]", f"model.path={released_model_dir}", f"output_dir={where / 'run'}"]
    run(load_recipe("pairs", [*own, *QUICK, "curriculum.max_steps=3"]), stop_after=2)
    return where


@pytest.mark.parametrize("name", part_slow(list(CHECKPOINTS), 3))
def test_a_broken_checkpoint_is_named(name: str, stopped: Path, released_model_dir: Path, tmp_path: Path, capsys):
    damage, pattern = CHECKPOINTS[name]
    shutil.copytree(stopped, tmp_path / "mine")
    damage(tmp_path / "mine")
    settings = ("curriculum.max_steps=3",)
    train(capsys, tmp_path / "mine", released_model_dir, *settings, options=("--resume",)).assert_refused(pattern)
