"""Peers of the benchmark, whose vectors are stored beside it: two encoders that were never trained together.

    python -m evaluation.photos.peers --data .data/photos

- `closed form`: a text is its MiniLM vector; a picture is the mean over EfficientNet-Lite0's 49 places of the class
  probabilities times the classes' MiniLM vectors. No training, no pair of picture and text.
- `closed form, best class known`: a picture is the MiniLM vector of the one class of 1000 whose text comes nearest to
  the picture's own captions: the most that one class a picture can say.
- `MiniLM, gold captions`: a picture is the mean of its own captions: the upper bound, 100 by construction but for
  captions and sentences that say the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image

from plume_embed.atomic import replacing
from plume_embed.command import run_command
from training.plume_small.data import class_texts
from training.plume_small.sources import teacher_folder
from training.plume_small.teacher import Teacher
from training.plume_small.tower import load_tower, maps


def write_peers(data: Path) -> list[Path]:
    """Writes `data/peers/NAME.npz`, see `plume_embed.evaluation.photos.run.stored_peers`."""
    content = json.loads((data / "photos.json").read_text(encoding="utf-8"))
    pictures = {entry["file"]: [entry["caption"]] for entry in content["stamps"]}
    pictures |= {entry["file"]: entry["sentences"] for entry in content["sentences"]}
    texts = sorted({text for captions in pictures.values() for text in captions})
    teacher, tower = Teacher(teacher_folder()), load_tower()
    text_vectors = torch.from_numpy(teacher.encode(texts))
    table = torch.from_numpy(teacher.encode(class_texts()))
    of_text = dict(zip(texts, text_vectors, strict=True))
    features = torch.from_numpy(maps(tower, (Image.open(data / file) for file in pictures))).float()
    with torch.inference_mode():
        closed = (tower.classifier(features).softmax(-1) @ table).mean(1)
    gold = torch.stack([torch.stack([of_text[text] for text in captions]).mean(0) for captions in pictures.values()])
    best_class = table[(F.normalize(gold, dim=-1) @ table.T).argmax(-1)]
    peers = {"closed form": closed, "closed form, best class known": best_class, "MiniLM, gold captions": gold}
    (data / "peers").mkdir(exist_ok=True)
    files = []
    for name, vectors in peers.items():
        files.append(data / "peers" / f"{name}.npz")
        keys = [*(f"text: {text}" for text in texts), *(f"image: {file}" for file in pictures)]
        both = torch.cat((text_vectors, F.normalize(vectors, dim=-1))).numpy()
        with replacing(files[-1]) as partial:
            np.savez(partial, keys=keys, vectors=both)
    return files


def main(data: Annotated[Path, typer.Option(help="What `make photos` wrote.")] = Path(".data/photos")) -> None:
    """Compute the vectors of the peers."""
    torch.set_num_threads(1)
    for file in write_peers(data):
        typer.echo(f"written: {file}")


if __name__ == "__main__":
    run_command(main)
