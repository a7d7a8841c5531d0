"""Items to vectors, end to end: how the time divides between the processor and the model."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from plume_embed.bench.timing import interleaved
from plume_embed.encode.batching import PaddingReport, plan_batches
from plume_embed.encode.encoder import Encoder
from plume_embed.model.modeling_plume import PlumeModel


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
    encoder: Encoder,
    kinds: tuple[str, ...] = ("text", "image", "video", "mixed"),
    batches: tuple[int, ...] = (1, 8, 32),
    budget_s: float = 10,
    num_batches: int = 4,
) -> list[dict[str, Any]]:
    """How the time of `num_batches` passes divides, and what it gains that the processor runs ahead of the model.

    Wall time, since the point is what happens at the same time: it says little while other jobs run.

    Returns:
        Rows of {name, kind, batch, prefix, ms_median, ms_spread, samples_per_s, times_model, share_of_tokens_padded}.
    """
    rows = []
    for kind in kinds:
        for size in batches:
            items = example_items(kind, size * num_batches)
            groups = [items[start : start + size] for start in range(0, len(items), size)]
            processed = [encoder.processor(group).to(encoder.device) for group in groups]
            cases = {
                "processor": lambda groups=groups: [encoder.processor(group) for group in groups],
                "model": lambda processed=processed: [_embed(encoder.model, batch) for batch in processed],
                "one after the other": lambda groups=groups: list(encoder.encode_batches(groups, num_threads=0)),
                "processor ahead": lambda groups=groups: list(encoder.encode_batches(groups)),
            }
            timings = interleaved(cases, encoder.device, budget_s, clock="wall")
            padding = PaddingReport()
            for batch in processed:
                padding.add(batch["attention_mask"])
            for name, timing in timings.items():
                rows.append(
                    {
                        "name": name,
                        "kind": kind,
                        "batch": size,
                        "prefix": max(batch["input_ids"].shape[1] for batch in processed),
                        "ms_median": timing.median,
                        "ms_spread": timing.spread,
                        "rounds": len(timing.times),
                        "samples_per_s": 1000 * len(items) / timing.median,
                        "times_model": timing.ratio_to(timings["model"]),
                        "share_of_tokens_padded": padding.share_padded,
                    }
                )
    return rows


def padding_rows(encoder: Encoder, batch: int = 8, count: int = 96) -> list[dict[str, Any]]:
    """What is padding, and what it costs, of mixed items: as they come, and in batches of like size within a budget."""
    items = example_items("mixed", count)
    sizes = [encoder.num_tokens(item) for item in items]
    budget = batch * sum(sizes) / len(sizes)
    plans = {
        "as they come": [list(range(start, min(start + batch, count))) for start in range(0, count, batch)],
        "like sizes": plan_batches(sizes, float("inf"), batch),
        "like sizes, token budget": plan_batches(sizes, budget, 8 * batch),
    }
    groups = {name: [[items[place] for place in places] for places in plan] for name, plan in plans.items()}
    cases = {name: lambda part=part: list(encoder.encode_batches(part)) for name, part in groups.items()}
    timings = interleaved(cases, encoder.device, budget_s=10, clock="wall")
    rows = []
    for name, timing in timings.items():
        encoder.padding = PaddingReport()
        cases[name]()
        rows.append(
            {
                "name": f"{count} mixed items, {name}",
                "batch": max(map(len, plans[name])),
                "ms_median": timing.median,
                "ms_spread": timing.spread,
                "rounds": len(timing.times),
                "samples_per_s": 1000 * count / timing.median,
                "num_batches": len(plans[name]),
                "share_of_tokens_padded": encoder.padding.share_padded,
            }
        )
    return rows


@torch.no_grad()
def _embed(model: PlumeModel, batch: dict[str, torch.Tensor]) -> np.ndarray:
    return model(**batch).embeddings.cpu().numpy()
