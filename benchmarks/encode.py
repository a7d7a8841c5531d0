"""Items to vectors, end to end: how the time divides between the processor and the model."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from plume_embed.modeling_plume import PlumeModel
from plume_embed.processing_plume import PlumeProcessor

from .timing import interleaved


def example_items(kind: str, count: int, seed: int = 0) -> list[Any]:
    """Texts of 5 to 60 words, pictures of 320 to 640 pixels a side, videos of 8 such frames, or all by turns."""
    rng = np.random.default_rng(seed)

    def picture() -> Image.Image:
        height, width = rng.integers(320, 641, 2)
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    def item(kind: str) -> Any:
        if kind == "text":
            return " ".join(["word"] * int(rng.integers(5, 61)))
        first = picture()
        return first if kind == "image" else {"video": [first.rotate(10 * turn) for turn in range(8)]}

    kinds = ("text", "image", "video") if kind == "mixed" else (kind,)
    return [item(kinds[index % len(kinds)]) for index in range(count)]


def encode_rows(
    model: PlumeModel,
    processor: PlumeProcessor,
    kinds: tuple[str, ...] = ("text", "image", "video", "mixed"),
    batches: tuple[int, ...] = (1, 8, 32),
    budget_s: float = 10,
) -> list[dict[str, Any]]:
    """Rows of {name, kind, batch, prefix, ms_median, ms_spread, samples_per_s, share_of_tokens_padded}."""
    rows = []
    for kind in kinds:
        for size in batches:
            items = example_items(kind, size)
            batch = processor(items).to(model.device)
            cases = {
                "processor": lambda items=items: processor(items),
                "model": lambda batch=batch: _embed(model, batch),
                "end to end": lambda items=items: _embed(model, processor(items).to(model.device)),
            }
            mask = batch["attention_mask"]
            for name, timing in interleaved(cases, model.device, budget_s).items():
                rows.append(
                    {
                        "name": name,
                        "kind": kind,
                        "batch": size,
                        "prefix": mask.shape[1],
                        "ms_median": timing.median,
                        "ms_spread": timing.spread,
                        "rounds": len(timing.times),
                        "samples_per_s": 1000 * size / timing.median,
                        "share_of_tokens_padded": 1 - mask.float().mean().item(),
                    }
                )
    return rows


@torch.no_grad()
def _embed(model: PlumeModel, batch: dict[str, torch.Tensor]) -> np.ndarray:
    return model(**batch).embeddings.cpu().numpy()
