"""A dry run: the whole of a corpus recipe with a random 2-layer backbone of the same kind, on made-up data."""

import dataclasses
import json
from pathlib import Path

from PIL import Image

from plume_embed.stored import naming
from plume_embed.training.recipe import DataSettings, ModelSettings, Recipe, recipe_from
from plume_embed.training.resuming import RECIPE_FILE, holds_run

_DATA = "train.jsonl"
_COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")


def dry_recipe(recipe: Recipe) -> Recipe:
    """The recipe with everything small: two steps a stage, eight pairs a batch, float32, its own output_dir.

    Args:
        recipe ([`Recipe`]): A recipe over a corpus.

    Raises:
        ValueError: the recipe has no corpus, so that it is small enough to run as it is; or that output_dir holds a
            run that is no dry run.
    """
    if recipe.task != "corpus":
        raise ValueError(f"A dry run is for recipes over a corpus; {recipe.task} is small enough to run.")
    out = Path(f"{recipe.output_dir}-dry-run")
    data = out / "data"
    if holds_run(out) and not _is_dry_run(out, data):
        raise ValueError(f"{out} holds a run that is no dry run; give another output_dir, or rename that folder.")
    curriculum = recipe.curriculum
    return dataclasses.replace(
        recipe,
        output_dir=str(out),
        batch_size=8,
        chunk_size=4,
        bf16=False,
        workers=0,
        save_steps=2 * len(curriculum.stages),
        curriculum=dataclasses.replace(
            curriculum, max_steps=2 * len(curriculum.stages), shares=(1.0,) * (curriculum.num_segments + 1)
        ),
        model=ModelSettings(
            hidden_size=64,
            layers=2,
            intermediate_size=128,
            vision_size=32,
            vision_depth=1,
            vocab_size=512,
            backbone=recipe.model.backbone,
            freeze_vision=recipe.model.freeze_vision,
            plume=recipe.model.plume,
        ),
        data=_made_up_data(data),
    )


def _is_dry_run(folder: Path, data: Path) -> bool:
    """Whether the run in a folder is one of data that was made up for it there."""
    file = folder / RECIPE_FILE
    if not file.is_file():
        return False
    with naming(file):
        begun = recipe_from(json.loads(file.read_text(encoding="utf-8")))
    return [Path(name).resolve() for name in begun.data.files] == [(data / _DATA).resolve()]


def _made_up_data(folder: Path) -> DataSettings:
    """A corpus of two sub-datasets: colour names to pictures, and pictures to colour names."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for colour in _COLOURS:
        Image.new("RGB", (56, 56), colour).save(folder / f"{colour}.png")
        words, picture = _side(f"a {colour} square", colour), _side("<image>\nWhich colour?", colour, [f"{colour}.png"])
        rows += [_row("retrieval", words, picture), _row("classification", picture, words)]
    (folder / _DATA).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return DataSettings(files=(str(folder / _DATA),), media_root=str(folder))


def _side(text: str, colour: str, image: list[str] | None = None) -> dict:
    thought = (
        f"<think>It is a square. It is {colour}. It has four sides. It is filled.</think><answer>{colour}</answer>"
    )
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": thought}]
    return {"conversations": turns} | ({"image": image} if image else {})


def _row(name: str, query: dict, target: dict) -> dict:
    return {"qry": query, "pos": target, "dataset_name": name}
