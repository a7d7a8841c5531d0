"""How far vectors move if a JPEG is decoded at a reduced size, which libjpeg offers, and not in full.

    python -m benchmarks.jpeg_draft --json FILE

The photographs of examples/, enlarged to 12 megapixels, are decoded in full and at the smallest size that is still
above what the model looks at. That is what a processor that calls `Image.draft` would do; ours does not.
"""

import io
import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from plume_embed import Encoder

ROOT = Path(__file__).parent.parent
LONG_SIDE = 4000


def main(
    model: Annotated[Path, typer.Option(help="Model folder.")] = ROOT / "checkpoints" / "plume-tiny",
    count: Annotated[int, typer.Option(help="Photographs.")] = 10,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the result.")] = None,
) -> None:
    """Embeds each photograph both ways."""
    encoder, seconds, rows = Encoder(model), {"full": 0.0, "reduced": 0.0}, []
    for path in sorted((ROOT / "examples" / "photographs").glob("*.jpg"))[:count]:
        data = enlarged(path)
        decoded = {}
        for way in seconds:
            start = time.process_time()
            with Image.open(io.BytesIO(data)) as picture:
                if way == "reduced":
                    wanted = encoder.processor.shrunk({"image": picture.copy()})["image"].size
                    start = time.process_time()
                    picture = Image.open(io.BytesIO(data))
                    picture.draft("RGB", wanted)
                picture.load()
                decoded[way] = picture.convert("RGB")
            seconds[way] += time.process_time() - start
        full, reduced = encoder.encode([{"image": picture} for picture in decoded.values()])
        rows.append({"cosine": float(full @ reduced), "largest_change": float(np.abs(full - reduced).max())})
    result = {
        "model": model.name,
        "photographs": len(rows),
        "least_cosine": min(row["cosine"] for row in rows),
        "largest_change": max(row["largest_change"] for row in rows),
        "seconds_a_picture": {way: round(total / len(rows), 3) for way, total in seconds.items()},
    }
    print(json.dumps(result, indent=2))
    if json_file:
        json_file.write_text(json.dumps(result, indent=2) + "\n")


def enlarged(path: Path) -> bytes:
    """A JPEG of a photograph with a long side of 4,000 pixels."""
    with Image.open(path) as picture:
        scale, out = LONG_SIDE / max(picture.size), io.BytesIO()
        size = (round(picture.width * scale), round(picture.height * scale))
        picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=92)
    return out.getvalue()


if __name__ == "__main__":
    typer.run(main)
