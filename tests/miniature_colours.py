"""A small benchmark of colours that is written as the miniature is, and models that know colours."""

import io
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Picture

from plume_embed.evaluation.miniature import report as miniature_report
from plume_embed.evaluation.miniature import run as miniature_run
from plume_embed.evaluation.miniature.schema import Query, Side, Task, write_media, write_tasks

COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
NAMES = tuple(COLOURS)


class ColourEmbedder:
    """The mean colour of what is shown, else the colour that the text ends in; counts what it embeds."""

    fingerprint, num_latent_steps, paradigm, written, dtype = "c", 2, "latent", None, "float32"

    def __init__(self, takes: tuple[str, ...] = ("text", "image", "video"), name: str = "colours") -> None:
        self.takes, self.name, self.seen = takes, name, []

    @property
    def documents(self):
        return self

    def supports(self, kinds):
        return set(kinds) <= set(self.takes)

    def embed_readable(self, inputs, batch_size):
        vectors, errors = [], {}
        for place, item in enumerate(inputs):
            frames = [item["image"]] if "image" in item else item.get("video", [])
            colours = [np.asarray(f.convert("RGB"), np.float32).reshape(-1, 3).mean(axis=0) for f in frames]
            if not frames and item["text"].endswith("?!"):
                errors[place] = "no colour at all"
            vectors.append(np.mean(colours, axis=0) if frames else COLOURS.get(item["text"].split()[-1], (1, 2, 3)))
            self.seen.append(tuple(sorted(item)))
        array = np.array(vectors, np.float32) + 1
        return array / np.linalg.norm(array, axis=1, keepdims=True), errors

    def embed(self, inputs, batch_size):
        return self.embed_readable(inputs, batch_size)[0]


class Wrong(ColourEmbedder):
    """Knows no yellow: it takes it for blue."""

    def embed_readable(self, inputs, batch_size):
        vectors, errors = super().embed_readable(inputs, batch_size)
        yellow = np.isclose(vectors[:, 0], vectors[:, 1]) & (vectors[:, 0] > vectors[:, 2])
        vectors[yellow] = np.array([1, 1, 256]) / np.linalg.norm([1, 1, 256])
        return vectors, errors


def png(colour: str, side: int = 30) -> bytes:
    buffer = io.BytesIO()
    Picture.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def task(meta: str, what: str, sides, candidates, concepts: str = "known", pools=None) -> Task:
    """Query i asks for candidate i."""
    pools = pools or [()] * len(sides)
    queries = tuple(Query(side, (n,), tuple(pool)) for n, (side, pool) in enumerate(zip(sides, pools, strict=True)))
    return Task(f"{meta}/{what}", concepts, queries, tuple(candidates))


def write_stills(data) -> None:
    """Two trained and two held-out colours, in the test style and in two training styles."""
    columns: dict[str, list] = {name: [] for name in ("image", "hexcode", "label", "tags", "group", "subgroup")}
    columns |= {name: [] for name in ("skin_tone", "gender", "family", "split_family", "style", "picture_hash")}
    for style, side in (("twemoji", 8), ("noto", 10), ("fluent-flat", 12)):
        for number, colour in enumerate(NAMES):
            row = {"image": Picture.new("RGB", (side, side), colour), "hexcode": colour, "label": f"all {colour}"}
            row |= {"tags": [], "group": "symbols", "subgroup": colour, "skin_tone": "", "gender": ""}
            row |= {"family": colour, "split_family": "train" if number < 2 else "test", "style": style}
            for name, value in (row | {"picture_hash": f"{style} {colour}"}).items():
                columns[name].append(value)
    features = {name: Value("string") for name in columns} | {"image": Image(), "tags": List(Value("string"))}
    Dataset.from_dict(columns, Features(features)).to_parquet(data / "stills.parquet")


def write_colours(folder: Path) -> Path:
    """All nine meta-tasks; I-QA and V-MRET have pools of their own, I-RET has known and unseen concepts."""
    write_stills(folder)
    write_media({f"crop/{name}": [png(name, 28)] for name in NAMES}, folder, "crop")
    write_media({f"clip/{name}": [png(name)] * 3 for name in NAMES}, folder, "clip", shard_rows=3)
    texts = [Side(name) for name in NAMES]
    stills = [Side(image=f"twemoji/{name}") for name in NAMES]
    clips = [Side(video=f"clip/{name}") for name in NAMES]
    crops = [Side(image=f"crop/{name}") for name in NAMES]
    pairs = [(0, 1), (1, 0), (2, 1), (0, 3)]
    write_tasks(
        [
            task("I-CLS", "picture to label", stills, texts),
            task("I-QA", "colour", [Side("which colour?", s.image) for s in stills], texts, pools=pairs),
            task("I-RET", "text to picture", [Side(f"all {name}") for name in NAMES[:2]], stills),
            task("I-RET", "text to picture", [Side(f"all {name}") for name in NAMES[::-1]], stills[::-1], "unseen"),
            task("I-GD", "crop", [Side(f"all {s.image[8:]}", s.image) for s in stills], crops),
            task("V-CLS", "clip to label", clips, texts),
            task("V-QA", "colour", [Side("which?", video=s.video) for s in clips], texts),
            task("V-RET", "text to clip", texts, clips),
            task("V-MRET", "moment", texts, clips, pools=[(0, 3), (1, 3), (2, 3), (3, 0)]),
            task("VisDoc", "page", texts, crops),
        ],
        folder,
    )
    return folder


def run(data, *embedders, **settings):
    """Tasks, contestants and report of an evaluation without latency and pixels, unless they are asked for."""
    settings = {"latency_rounds": 0, "with_pixels": False} | settings
    tasks, contestants = miniature_run.evaluate(data, embedders, **settings)
    return tasks, contestants, miniature_report.as_dict(tasks, contestants, resamples=50)
