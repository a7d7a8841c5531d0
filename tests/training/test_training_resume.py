"""What a run goes on with: the data and the model that it began with, wherever they lie now, and the time it took."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from training_folder import training_folder

from plume_embed.encode.encoder import fingerprint
from plume_embed.training.beginning import Beginning, beginning_of, check_beginning, keep_beginning
from plume_embed.training.data.corpus_task import CorpusTask
from plume_embed.training.data.pairs_task import PairsTask
from plume_embed.training.recipe import Recipe, load_recipe
from plume_embed.training.run import run

QUICK = ("batch_size=2", "curriculum.max_steps=3", "curriculum.num_latent_steps=1", "early_stopping=null")
COLOURS = ("red", "green", "blue", "yellow", "black", "white")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pairs of a text and a picture, and a picture that none of them names."""
    return pairs_in(tmp_path / "data")


def pairs_in(folder: Path) -> Path:
    folder.mkdir()
    for colour in (*COLOURS, "pink"):
        Image.new("RGB", (56, 56), colour).save(folder / f"{colour}.png")
    rows = [{"query": f"a {colour} square", "positive": {"image": f"{colour}.png"}} for colour in COLOURS]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe(folder: Path, model: Path, *settings: str) -> Recipe:
    own = [f"data.files=[{folder / 'pairs.jsonl'}]", f"model.path={model}", f"output_dir={folder.parent / 'run'}"]
    return load_recipe("pairs", [*own, *QUICK, *settings])


def of_pairs(chosen: Recipe) -> Beginning:
    return beginning_of(chosen, PairsTask(chosen))


def a_copy_with_other_weights(model: Path, to: Path) -> Path:
    """A model of the same shapes from another seed."""
    from plume_embed import PlumeModel

    shutil.copytree(model, to)
    loaded = PlumeModel.from_pretrained(to)
    for parameter in loaded.parameters():
        parameter.data.mul_(1.01)
    loaded.save_pretrained(to)
    return to


def test_a_run_whose_file_has_grown_is_refused_and_nothing_of_it_is_written_over(folder, released_model_dir):
    chosen = recipe(folder, released_model_dir)
    run(chosen, stop_after=2)
    held_out = folder.parent / "run" / "held_out.jsonl"
    before = held_out.read_bytes()
    with (folder / "pairs.jsonl").open("a") as file:
        file.write('{"query": "a pink square", "positive": {"image": "pink.png"}}\n')
    with pytest.raises(ValueError, match=r"holds a run of other data: the content or the place of pairs\.jsonl has"):
        run(chosen, resume=True)
    assert held_out.read_bytes() == before


def test_a_run_whose_folder_and_model_were_moved_goes_on(folder, released_model_dir, tmp_path):
    run(recipe(folder, released_model_dir), stop_after=2)
    moved, model = tmp_path / "moved", tmp_path / "model"
    folder.rename(moved)
    shutil.copytree(released_model_dir, model)
    console = Console(file=io.StringIO(), width=500)
    assert run(recipe(moved, model), resume=True, console=console)["resumed_from"] == "checkpoint-2"
    assert "not checked" not in console.file.getvalue() and "other files" not in console.file.getvalue()


def changed(folder: Path, change: str) -> None:
    file = folder / "pairs.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    if change == "order":
        file.write_text("".join(lines[::-1]))
    elif change == "text":
        file.write_text(file.read_text().replace("a red square", "a dark red square"))
    elif change == "negative":
        file.write_text("".join([lines[0].replace("}}", '}, "negatives": ["pink"]}'), *lines[1:]]))
    else:
        Image.new("RGB", (56, 56), "orange").save(folder / "red.png")


@pytest.mark.parametrize("change", ["order", "text", "negative", "picture"])
def test_pairs_are_the_same_by_order_text_and_content_of_their_media(change, folder, released_model_dir):
    chosen = recipe(folder, released_model_dir)
    keep_beginning(folder, of_pairs(chosen))
    at_folder = dataclasses.replace(chosen, output_dir=str(folder))
    console = Console(quiet=True)
    assert check_beginning(at_folder, of_pairs(chosen), console) == of_pairs(chosen)
    changed(folder, change)
    with pytest.raises(ValueError, match=r"pairs\.jsonl has changed"):
        check_beginning(at_folder, of_pairs(chosen), console)


def test_the_file_that_has_changed_is_named_among_several(folder, released_model_dir):
    (folder / "test.jsonl").write_text('{"query": "pink", "positive": {"image": "pink.png"}}\n')
    chosen = recipe(folder, released_model_dir, f"pairs.held_out_files=[{folder / 'test.jsonl'}]")
    keep_beginning(folder, of_pairs(chosen))
    at_folder = dataclasses.replace(chosen, output_dir=str(folder))
    drawn = recipe(folder, released_model_dir)
    with pytest.raises(ValueError, match=r"its files were pairs\.jsonl, test\.jsonl and are pairs\.jsonl"):
        check_beginning(at_folder, of_pairs(drawn), Console(quiet=True))
    (folder / "test.jsonl").write_text('{"query": "rose", "positive": {"image": "pink.png"}}\n')
    with pytest.raises(ValueError, match=r"place of test\.jsonl has changed"):
        check_beginning(at_folder, of_pairs(chosen), Console(quiet=True))


def test_a_training_folder_is_the_same_wherever_it_lies_and_another_with_other_media(tmp_path):
    tiny = str(Path(__file__).parents[2] / "training" / "plume_tiny" / "tiny.yaml")
    found = []
    for name in ("one", "other"):
        settings = [f"data.folder={training_folder(tmp_path / name)}", "model.path=null", "batch_size=4"]
        settings += ["data.repeat={}", "data.never_augmented=[]"]
        chosen = load_recipe(tiny, settings)
        found.append(beginning_of(chosen, CorpusTask(chosen)))
    assert found[0] == found[1] and found[0].model is None
    names = [name for name, _ in found[0].data]
    assert "train/text-scene.parquet" in names and any(name.startswith("media/") for name in names)
    medium = next((tmp_path / "other" / "media").glob("*.parquet"))
    medium.write_bytes(medium.read_bytes() + b"0")
    again = beginning_of(chosen, CorpusTask.__new__(CorpusTask))  # files alone
    assert [name for name, _ in set(found[0].data) - set(again.data)] == [f"media/{medium.name}"]


def test_a_run_of_an_older_version_goes_on_and_says_what_it_could_not_check(folder, released_model_dir):
    chosen = recipe(folder, released_model_dir)
    run(chosen, stop_after=2)
    (folder.parent / "run" / "beginning.json").unlink()
    (folder.parent / "run" / "checkpoint-2" / "time.json").unlink()
    console = Console(file=io.StringIO(), width=500)
    results = run(chosen, resume=True, console=console)
    assert "begun by an older version, which kept no digests" in console.file.getvalue()
    assert results["resumed_from"] == "checkpoint-2" and "began_with" not in results
    assert "train_minutes" not in results and "train_cpu_minutes" not in results


def test_what_a_run_began_with_is_named_where_it_is_damaged(folder, released_model_dir):
    chosen = recipe(folder, released_model_dir)
    at_folder = dataclasses.replace(chosen, output_dir=str(folder))
    for text in ("{", "5", '{"model": null}', '{"model": null, "data": 5}'):
        (folder / "beginning.json").write_text(text)
        with pytest.raises(ValueError, match=r"beginning\.json is damaged"):
            check_beginning(at_folder, of_pairs(chosen), Console(quiet=True))


def test_low_rank_updates_do_not_go_on_over_another_model(folder, released_model_dir, tmp_path):
    run(recipe(folder, released_model_dir, "lora.rank=2"), stop_after=2)
    other = a_copy_with_other_weights(released_model_dir, tmp_path / "other")
    with pytest.raises(ValueError, match="holds a LoRA run of another model than model.path=.*other is now"):
        run(recipe(folder, other, "lora.rank=2"), resume=True)
    again = run(recipe(folder, released_model_dir, "lora.rank=2"), resume=True)
    assert again["began_with"] == fingerprint(released_model_dir)


def test_whole_weights_go_on_and_results_name_the_model_that_they_began_with(folder, released_model_dir, tmp_path):
    run(recipe(folder, released_model_dir), stop_after=2)
    other = a_copy_with_other_weights(released_model_dir, tmp_path / "other")
    console = Console(file=io.StringIO(), width=500)
    results = run(recipe(folder, other), resume=True, console=console)
    assert results["began_with"] == fingerprint(released_model_dir) != fingerprint(other)
    assert "holds other files than when the run began" in console.file.getvalue()


def test_the_time_of_a_run_is_that_of_all_its_parts(folder, released_model_dir):
    chosen = recipe(folder, released_model_dir)
    run(chosen, stop_after=2)
    kept = folder.parent / "run" / "checkpoint-2" / "time.json"
    assert 0 < json.loads(kept.read_text())["seconds"] < 600
    kept.write_text('{"seconds": 6000.0, "cpu_seconds": 12000.0}')
    results = run(chosen, resume=True)
    assert 100 < results["train_minutes"] < 110 and 200 < results["train_cpu_minutes"] < 210
