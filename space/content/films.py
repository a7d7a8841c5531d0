"""Films for the page: browsers play H.264 in MP4; whatever else was uploaded is transcoded, small and short.

Transcoding decodes what a stranger uploaded, so it runs in the process with limits, as reading does, and it opens films
as the package does: nothing but the file itself is read.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from PIL import Image

from plume_embed.model.images_plume import IMAGE_SUFFIXES, opened
from plume_embed.model.videos_plume import Frame, open_container, open_film

PLAYED_CODECS = frozenset({"h264", "vp8", "vp9", "av1"})
PLAYED_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
LONG_SIDE = 480
FRAMES_PER_SECOND = 12
SECONDS = 20


@contextmanager
def telling_what_is_wrong() -> Iterator[None]:
    """What FFmpeg raises as a ValueError for the visitor."""
    try:
        yield
    except av.ArgumentError as error:  # what it says to a demuxer that is not on the package's list
        raise ValueError("it is no film in a container that is read") from error
    except av.FFmpegError as error:
        raise ValueError("it is damaged or truncated") from error


def is_played_by_browsers(path: Path) -> bool:
    """Whether Chromium, Firefox and Safari play the file as it is: by container, codec and pixel format.

    Raises:
        ValueError: it is no film.
    """
    with telling_what_is_wrong(), opened(path, "video") as file, open_container(file) as (container, stream):
        context = stream.codec_context
        is_webm = container.format.name == PLAYED_FORMATS[1] and path.suffix.lower() == ".webm"
        is_mp4 = container.format.name == PLAYED_FORMATS[0]
        return (is_webm or is_mp4) and context.name in PLAYED_CODECS and context.pix_fmt in ("yuv420p", "yuvj420p")


def playable_copy(path: Path, max_pixels: int, always: bool = False) -> bytes | None:
    """The film as H.264 in MP4: upright, in square pixels, at most `LONG_SIDE` of them, `FRAMES_PER_SECOND` and
    `SECONDS`, without sound.

    Args:
        path (`Path`): Of the film, which may be an animated picture.
        max_pixels (`int`): Most pixels of a frame.
        always (`bool`): Also where browsers play the file itself, for a copy that is small.

    Returns:
        `bytes`, or `None` where the file itself can be played.

    Raises:
        ValueError: it is no film, damaged, or over `max_pixels`.
    """
    if not always and is_played_by_browsers(path):
        return None
    out = io.BytesIO()
    with telling_what_is_wrong(), open_film(path, max_pixels) as film, av.open(out, "w", format="mp4") as target:
        _transcode(film.frames, target, _stored_shape(path))
    return out.getvalue()


class _StoredShape(NamedTuple):
    """How a film's frames are stored: their size, and how many times as wide as high a pixel is to be shown."""

    size: tuple[int, int]
    pixel: Fraction

    def shown(self, picture: tuple[int, int]) -> tuple[float, float]:
        """The size in square pixels of an upright picture of this size."""
        width, height = picture
        is_turned = picture != self.size and picture == self.size[::-1]
        return (width, height * float(self.pixel)) if is_turned else (width * float(self.pixel), height)


def _stored_shape(path: Path) -> _StoredShape:
    if path.suffix.lower() in IMAGE_SUFFIXES:  # an animated picture, whose pixels are square
        return _StoredShape((0, 0), Fraction(1))
    with opened(path, "video") as file, open_container(file) as (_, stream):
        return _StoredShape((stream.width, stream.height), stream.sample_aspect_ratio or Fraction(1))


def _transcode(frames: Iterator[Frame], target: av.container.OutputContainer, stored: _StoredShape) -> None:
    encoded, num_written = None, 0
    for frame in frames:
        if frame.seconds >= SECONDS:
            break
        num_due = 1 + math.floor(frame.seconds * FRAMES_PER_SECOND)
        if num_due <= num_written:  # fast films lose some frames
            continue
        picture = frame.picture()
        encoded = encoded or _add_stream(target, stored.shown(picture.size))
        small = picture.resize((encoded.width, encoded.height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        shown = av.VideoFrame.from_image(small).reformat(format="yuv420p")
        shown.time_base = Fraction(1, FRAMES_PER_SECOND)
        for number in range(num_written, num_due):  # slow films repeat some
            shown.pts = number
            target.mux(encoded.encode(shown))
        num_written = num_due
    if encoded is None:
        raise ValueError("it holds no frame that can be decoded")
    target.mux(encoded.encode())


def _add_stream(target: av.container.OutputContainer, size: tuple[float, float]) -> av.VideoStream:
    """A stream for frames of this size, made small; H.264 wants even sides."""
    scale = min(1.0, LONG_SIDE / max(size))
    stream = target.add_stream("libx264", rate=FRAMES_PER_SECOND)
    stream.width, stream.height = (max(2, 2 * math.floor(side * scale / 2)) for side in size)
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": "28", "preset": "veryfast", "threads": "1"}
    return stream
