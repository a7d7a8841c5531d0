"""Run by test_families.py in a fresh process: loads each folder without the package and writes what it embeds."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

torch.set_num_threads(1)


def items() -> list:
    """A text, a picture with a text, and a film."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 60, 80, 3), dtype=np.uint8)
    pictures = [Image.fromarray(frame) for frame in pixels]
    return ["a cat", {"image": pictures[0], "text": "hi"}, {"video": pictures[1:]}]


def main(work: Path, folders: list[str]) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoProcessor

    report = {}
    for folder in folders:
        model, info = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        sentence = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
        with torch.inference_mode():
            vectors = model.eval()(**processor(items())).embeddings
        report[Path(folder).name] = {
            "module": type(model).__module__,
            "problems": sum(len(info[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")),
            "automodel": vectors.tolist(),
            "sentence_transformer": sentence.encode(items()).tolist(),
        }
    assert "plume_embed" not in sys.modules
    (work / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
