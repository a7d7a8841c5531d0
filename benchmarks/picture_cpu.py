"""CPU time to decode a photograph, and to resize it and cut it into patches, at the size of the plan of docs/scale.md.

    python -m benchmarks.picture_cpu --json FILE

It is the time of the process and not of the clock, in one thread, for photographs of examples/ brought to each size.
Beside the processor stands what its library's image processor takes for the same pixels (`resizing_plume.py`).
"""

import io
import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

from plume_embed import Encoder
from plume_embed.atomic import write_json
from plume_embed.model.images_plume import read_image
from scripts.scale_plan import Gpu

ROOT = Path(__file__).parent.parent
SIZES = {"1": (1152, 864), "12": (4000, 3000)}  # megapixels -> width, height
STEPS = ("decode", "resize and patches", "resize and patches, by the library alone")
_BY_THE_LIBRARY = {"do_rescale": True}  # with options of its own a picture goes there as it is


def measured(model: Path, count: int, rounds: int) -> dict[str, Any]:
    """CPU milliseconds a picture by megapixels and step, the median of the rounds, with the least and the most.

    Args:
        model (`Path`): Whose processor it is; its pictures are brought to the visual tokens of the plan.
        count (`int`): Photographs.
        rounds (`int`): Over all of them, after one that does not count.
    """
    torch.set_num_threads(1)
    processor = Encoder(model).processor
    images = processor.image_processor
    pixels_a_token = (images.patch_size * images.merge_size) ** 2
    images.size = {"shortest_edge": pixels_a_token, "longest_edge": Gpu.visual_tokens * pixels_a_token}
    found: dict[str, Any] = {"model": model.name, "photographs": count, "rounds": rounds, "cpu_ms": {}}
    for megapixels, size in SIZES.items():
        files = [at_size(path, size) for path in sorted((ROOT / "examples" / "photographs").glob("*.jpg"))[:count]]
        times: dict[str, list[float]] = {step: [] for step in STEPS}
        for _ in range(rounds + 1):
            for step, spent in zip(times, seconds(processor, files), strict=True):
                times[step].append(1000 * spent / count)
        found["cpu_ms"][megapixels] = {
            step: {
                name: round(of(kept), 1) for name, of in (("median", statistics.median), ("least", min), ("most", max))
            }
            for step, (_, *kept) in times.items()
        }
        grid = processor([{"image": read_image(io.BytesIO(files[0]))}])["image_grid_thw"][0]
        found["visual_tokens"] = int(grid.prod()) // images.merge_size**2
    return found


def seconds(processor: Any, files: list[bytes]) -> tuple[float, float, float]:
    """CPU seconds of all photographs: to decode them; to resize and cut them; the same by the library alone."""
    spent = np.zeros(3)
    for file in files:
        times = [time.process_time()]
        picture = read_image(io.BytesIO(file))
        times.append(time.process_time())
        processor([{"image": picture}])
        times.append(time.process_time())
        processor([{"image": picture}], images_kwargs=_BY_THE_LIBRARY)
        times.append(time.process_time())
        spent += np.diff(times)
    return tuple(spent)


def at_size(path: Path, size: tuple[int, int]) -> bytes:
    """A JPEG of a photograph, brought to this width and height."""
    with Image.open(path) as picture:
        out = io.BytesIO()
        picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=92)
    return out.getvalue()


def main(
    model: Annotated[Path, typer.Option(help="Model folder.")] = ROOT / "checkpoints" / "plume-tiny",
    count: Annotated[int, typer.Option(help="Photographs.")] = 6,
    rounds: Annotated[int, typer.Option(help="Over all of them.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the result.")] = None,
) -> None:
    """Measures both sizes."""
    result = measured(model, count, rounds)
    print(json.dumps(result, indent=1))
    if json_file:
        write_json(json_file, result)


if __name__ == "__main__":
    typer.run(main)
