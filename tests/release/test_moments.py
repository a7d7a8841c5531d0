"""A moment of two seconds in a film: found by the clip that shows it, where the film as a whole hides it."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from plume_embed import Encoder
from plume_embed.reading.items import SourceFile
from plume_embed.reading.read import Options, read_items

pytestmark = pytest.mark.release
ROOT = Path(__file__).parent.parent.parent
RATE = 4


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(ROOT / "checkpoints" / "plume-tiny")


def picture(name: str) -> Image.Image:
    with Image.open(ROOT / "examples" / "pictures" / name) as opened:
        return opened.convert("RGB").resize((96, 72))


def write_film(path: Path, seconds: int, second: int, moment: Image.Image, rest: Image.Image) -> SourceFile:
    """A film that shows `moment` for two seconds and `rest` before and after it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 72, "yuv420p", 2_000_000
        for index in range(seconds * RATE):
            shown = moment if second <= index / RATE < second + 2 else rest
            frame = av.VideoFrame.from_ndarray(np.roll(np.asarray(shown), index % 7, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    status = path.stat()
    return SourceFile(path.name, path, "video", status.st_size, status.st_mtime_ns)


@pytest.mark.parametrize(
    ("seconds", "second", "moment", "rest"),
    [
        (90, 33, "airplane.png", "1st_place_medal.png"),
        (90, 71, "amphora.png", "american_football.png"),
        (90, 0, "ant.png", "anchor.png"),
        (40, 23, "airplane.png", "1st_place_medal.png"),
        (20, 9, "amphora.png", "american_football.png"),
    ],
)
def test_a_moment_in_a_film_is_found_in_the_clip_that_shows_it(encoder, tmp_path, seconds, second, moment, rest):
    file = write_film(tmp_path / "film.mp4", seconds, second, picture(moment), picture(rest))
    items = list(read_items(file, encoder.fits, Options.of(encoder.processor)))
    query, still, whole = encoder.encode(
        [{"video": [picture(moment)] * 8}, {"image": picture(moment)}, {"video": file.absolute}]
    )
    clips = encoder.encode([item.content for item in items])
    for vector in (query, still):
        start, end = map(int, items[int((clips @ vector).argmax())].locator.removeprefix("time=").split("-"))
        assert start < second + 2 and second < end
    assert (clips @ query).max() > query @ whole + 0.1
