"""Vectors of plume-tiny, kept so that a change of the code can be held against them.

`python tests/release/stored_vectors.py` prints how far today's vectors are from the stored ones; `--write` stores
today's. On the machine that stored them they are equal bit for bit; another processor sums in another order.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "tests" / "fixtures" / "plume_tiny_vectors.safetensors"
FILMS = ("airplane", "fire_engine", "palm_tree", "turtle")


def items() -> dict[str, dict]:
    """One item of each kind and several of some, by name."""
    pictures = sorted((ROOT / "examples" / "pictures").glob("*.png"))[::8]
    films = [ROOT / "space" / "queries" / f"{name}.mp4" for name in FILMS]
    texts = ["a guitar", "vehicle", "ein rotes Fahrrad am See", "湖边", " ".join(["many words"] * 40)]
    found: dict[str, dict] = {f"picture {path.name}": {"image": path} for path in pictures}
    found |= {f"film {path.name}": {"video": path} for path in films}
    found |= {f"text {number}": {"text": text} for number, text in enumerate(texts)}
    found |= {f"both {path.name}": {"image": path, "text": "a kind of what?"} for path in pictures[:3]}
    return found


def vectors(num_latent_steps: int | None = None) -> dict[str, torch.Tensor]:
    """Each item embedded alone by the bundled plume-tiny: `[D]`, float32."""
    from transformers import AutoModel, AutoProcessor

    folder = ROOT / "checkpoints" / "plume-tiny"
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    with torch.inference_mode():
        return {
            name: model(**processor([item]), num_latent_steps=num_latent_steps).embeddings[0]
            for name, item in items().items()
        }


def all_vectors() -> dict[str, torch.Tensor]:
    """By the model's own K, and by a single pass."""
    return {f"K8 {name}": v for name, v in vectors().items()} | {f"K0 {name}": v for name, v in vectors(0).items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    now = all_vectors()
    if "--write" in sys.argv:
        save_file(now, FILE)
    stored = load_file(FILE)
    furthest = max((now[name] - vector).abs().max().item() for name, vector in stored.items())
    equal = sum(torch.equal(now[name], vector) for name, vector in stored.items())
    print(f"{equal} of {len(stored)} vectors equal bit for bit, largest difference {furthest:.2e}")
