# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""Films: a file, or its bytes -> upright RGB frames, evenly spaced or one after the other.

A film is what FFmpeg reads (through PyAV) or an animated picture (GIF, WebP, PNG, AVIF; through Pillow). The header is
believed only where the frames bear it out. This file needs no torch.
"""

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from .images_plume import MAX_PIXELS, NotOpenedError, check_size, open_picture, opened, source_name, to_rgb, why

if TYPE_CHECKING:
    import av
    from av.video.reformatter import VideoReformatter

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg"})

# Demuxers that read one file and nothing else. Playlists, which name other files and addresses, are not among them, nor
# is mjpeg, which takes a PDF with photographs for a film.
_DEMUXERS = (
    "3gp,asf,avi,dv,flv,gxf,h261,h263,h264,hevc,ivf,m4v,matroska,mov,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,"
    "vc1,webm,wtv,yuv4mpegpipe"
)
_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"}
_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
_UNTIMED_MILLISECONDS = 100
_PICTURE_STARTS = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")

# The upper left of a film's display matrix, in units of one -> what turns the stored frame upright. The matrix takes
# the column (a, c) to x and (b, d) to y, y pointing down.
_UPRIGHT = {
    (1, 0, 0, 1): None,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


@dataclass(frozen=True)
class Frame:
    """A frame of a film.

    Args:
        seconds (`float`): When it is shown, from the film's start.
        picture (`Callable`): Makes its picture.
        begins_second (`bool`): Another second of the film has passed with it: whoever limits the time of decoding by
            the length of what was decoded counts these.
    """

    seconds: float
    picture: Callable[[], Image.Image]
    begins_second: bool = False


@dataclass(frozen=True)
class Film:
    """An open film.

    Args:
        promised (`int`): Frames by the header; 0 where it does not say.
        frames (`Iterator[Frame]`): All of them in the order in which they are shown.
    """

    promised: int
    frames: Iterator[Frame]


class TimedFrames(list[Any]):
    """The frames of a film as a list that knows when each is shown. A plain list of frames has no times.

    Args:
        frames (`Iterable`): Pictures in any form, in their order.
        times (`Sequence[float]`): When each is shown, in seconds from the film's start.

    Raises:
        ValueError: another number of times than of frames.
    """

    def __init__(self, frames: Iterable[Any], times: Sequence[float]):
        super().__init__(frames)
        self.times = tuple(times)
        if len(self.times) != len(self):
            raise ValueError(f"Every frame has one time, got {len(self.times)} times for {len(self)} frames.")

    @staticmethod
    def like(frames: Sequence[Any], changed: list[Any]) -> list[Any]:
        """What became of `frames`, with their times if they have any."""
        return TimedFrames(changed, frames.times) if isinstance(frames, TimedFrames) else changed


def sample_frames(source: Any, num_frames: int, max_pixels: int = MAX_PIXELS) -> tuple[list[Image.Image], list[float]]:
    """Evenly spaced frames of a film, first and last included (all, where it has fewer), and their seconds.

    Args:
        source: What [`opened`] of images_plume takes.
        num_frames (`int`): How many.
        max_pixels (`int`): Most pixels of a frame.

    Raises:
        ValueError: it cannot be read, naming it, whatever its decoder raises.
    """
    *_, sampled = sample_in_steps(source, num_frames, max_pixels)
    assert sampled is not None
    return sampled


def sample_in_steps(
    source: Any, num_frames: int, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[list[Image.Image], list[float]] | None]:
    """[`sample_frames`] for whoever limits its time: gives `None` each time that another second of the film has been
    decoded, and at the end what [`sample_frames`] gives.

    Every frame is decoded once, and once more where the header does not say how many there are, or says it wrongly.
    """
    with naming_the_film(source):
        with open_film(source, max_pixels) as film:
            expected = film.promised
        if not expected:
            expected = yield from _count(source, max_pixels)
        pictures, seconds, total = yield from _pick(source, expected, num_frames, max_pixels)
        if total != expected:  # the header lied
            pictures, seconds, _ = yield from _pick(source, total, num_frames, max_pixels)
        if not pictures:
            raise ValueError("it has no frames")
    yield pictures, seconds


def film_seconds(source: Any, max_pixels: int = MAX_PIXELS) -> float:
    """How long a film is, by its frames and not by its header; nothing is decoded that need not be.

    A frame of an animated picture that says no time, or 0, counts 0.1 seconds, which is what browsers show.

    Raises:
        ValueError: it cannot be read, naming it.
    """
    with naming_the_film(source), opened(source, "video") as file:
        if _is_picture(file):
            with open_picture(file) as picture:
                return _animation_seconds(picture)
        with open_container(file) as (container, stream):
            start, end, number = math.inf, -math.inf, 0
            for packet in container.demux(stream):
                if not packet.size or packet.is_discard:  # an edit list leaves packets out that the rest is coded by
                    continue
                number += 1
                time = packet.dts if packet.pts is None else packet.pts
                if time is not None:
                    start, end = min(start, time), max(end, time + (packet.duration or 0))
            if not start < end:  # a stream without times
                return number / _rate(stream)
            return float((end - start) * stream.time_base)


@contextmanager
def open_film(source: Any, max_pixels: int = MAX_PIXELS) -> Iterator[Film]:
    """Opens a film or an animated picture.

    Raises:
        ValueError: no film, or frames above `max_pixels`. Its decoder may raise anything else.
    """
    with opened(source, "video") as file:
        if _is_picture(file):
            with open_picture(file) as picture:
                check_size(*picture.size, max_pixels)
                yield Film(_num_frames(picture), _by_seconds(_animation_frames(picture, max_pixels)))
            return
        with open_container(file) as (container, stream):
            yield Film(stream.frames, _by_seconds(_stream_frames(container, stream, max_pixels)))


@contextmanager
def naming_the_film(source: Any) -> Iterator[None]:
    """Whatever a decoder raises as one ValueError that names the film."""
    import av

    try:
        yield
    except NotOpenedError:
        raise
    except av.ArgumentError as error:  # what FFmpeg says to a demuxer that is not on the list
        raise ValueError(
            f"Cannot read {source_name(source)} as a video: it is no film in a container that is read"
        ) from error
    except av.FFmpegError as error:
        raise ValueError(f"Cannot read {source_name(source)} as a video: {error.strerror}") from error
    except Exception as error:
        reason = why(error, source)
        raise ValueError(f"Cannot read {source_name(source)} as a video: {reason}") from error


def is_animated(picture: Image.Image) -> bool:
    """Whether an open picture is a film; a camera's JPEG with a preview behind it, or a TIFF with pages, is not."""
    return _num_frames(picture) > 1


def _num_frames(picture: Image.Image) -> int:
    return picture.n_frames - _first_frame(picture) if picture.format in _ANIMATED else 1


def _first_frame(picture: Image.Image) -> int:
    """Where an animation begins: a PNG may have a picture in front of it for programs that show none."""
    return int(picture.format == "PNG" and picture.info.get("default_image", False))


def _is_picture(file: BinaryIO) -> bool:
    start = file.read(12)
    file.seek(0)
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    return start.startswith(_PICTURE_STARTS) or start[4:] in (b"ftypavis", b"ftypavif")


def _evenly_spaced(total: int, num_frames: int) -> list[int]:
    return np.linspace(0, total - 1, min(num_frames, total), dtype=int).tolist()


def _by_seconds(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The frames, marked where another second has passed."""
    due = 1.0
    for frame in frames:
        if frame.seconds >= due:
            due = frame.seconds + 1
            frame = replace(frame, begins_second=True)
        yield frame


def _count(source: Any, max_pixels: int) -> Generator[None, None, int]:
    """How many frames a film has, in the steps of [`sample_in_steps`]."""
    found = 0
    with open_film(source, max_pixels) as film:
        for frame in film.frames:
            found += 1
            if frame.begins_second:
                yield
    return found


def _pick(
    source: Any, expected: int, num_frames: int, max_pixels: int
) -> Generator[None, None, tuple[list[Image.Image], list[float], int]]:
    """The evenly spaced frames of a film that should have `expected` ones, their seconds, and how many it has, in the
    steps of [`sample_in_steps`]."""
    import av

    indices = _evenly_spaced(expected, num_frames)
    wanted, pictures, seconds, found = set(indices), [], [], 0
    with open_film(source, max_pixels) as film:
        for frame in film.frames:
            if found in wanted:
                pictures.append(frame.picture())
                seconds.append(frame.seconds)
            found += 1
            if frame.begins_second:
                yield
            if len(pictures) == len(indices):
                break
        if num_frames == 1 and pictures:  # the first frame, whatever the count
            return pictures, seconds, expected
        try:
            for frame in film.frames:
                found += 1
                if frame.begins_second:
                    yield
        except av.FFmpegError:  # damage behind the last frame that the header knows
            pass
    return pictures, seconds, found


@contextmanager
def open_container(file: BinaryIO, **options: str) -> "Iterator[tuple[av.container.InputContainer, av.VideoStream]]":
    """Opens a film with PyAV, in a way that reads this file and nothing else.

    Args:
        file (binary file)
        options: More options of FFmpeg's demuxer.

    Raises:
        ValueError: it holds no video stream, or one whose frames are coded in a way that is not known.
        av.ArgumentError: it is no film in a container that is read.
        av.FFmpegError: it is damaged.
    """
    import av

    with av.open(file, options=_OPTIONS | options) as container:
        if not container.streams.video:
            raise ValueError("it holds no video stream")
        if container.streams.video[0].codec_context is None:
            raise ValueError("its frames are coded in a way that is not known")
        yield container, container.streams.video[0]


def _stream_frames(
    container: "av.container.InputContainer", stream: "av.VideoStream", max_pixels: int
) -> Iterator[Frame]:
    from av.video.reformatter import VideoReformatter

    check_size(stream.width, stream.height, max_pixels)
    reformatter = VideoReformatter()  # one for all frames: each has threads and memory of its own
    start = turn = None
    for index, frame in zip(count(), container.decode(stream), strict=False):
        time = frame.time if frame.time is not None else index / _rate(stream)
        if index == 0:
            # The header's mark, which FFmpeg puts on every frame. Looking at it keeps the frame in memory for long.
            start, turn = time, _turn(frame)
        yield Frame(time - start, partial(_picture, frame, reformatter, turn, max_pixels))


def _rate(stream: "av.VideoStream") -> float:
    return float(stream.average_rate or stream.base_rate or 25)


def _picture(
    frame: "av.VideoFrame", reformatter: "VideoReformatter", turn: Image.Transpose | None, max_pixels: int
) -> Image.Image:
    check_size(frame.width, frame.height, max_pixels)
    picture = reformatter.reformat(frame, format="rgb24").to_image()
    return picture if turn is None else picture.transpose(turn)


def _turn(frame: "av.VideoFrame") -> Image.Transpose | None:
    """What a frame's display matrix of nine 16.16 fixed-point numbers asks for.

    Raises:
        ValueError: a turn by anything but quarters.
    """
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return None
    matrix = np.frombuffer(bytes(matrix), dtype=np.int32)
    values = matrix[[0, 1, 3, 4]] / 65536
    scale = np.abs(values).max()
    if scale == 0:  # no matrix at all
        return None
    quarter = tuple(int(value) for value in np.round(values / scale))
    if quarter not in _UPRIGHT or np.abs(values / scale - quarter).max() > 0.02:
        raise ValueError("its header turns it by an angle that is no quarter turn; save it upright")
    return _UPRIGHT[quarter]


def _animation_frames(picture: Image.Image, max_pixels: int) -> Iterator[Frame]:
    seconds = 0.0
    first = _first_frame(picture)
    for index in range(first, first + _num_frames(picture)):
        picture.seek(index)
        shown = to_rgb(picture, max_pixels)
        yield Frame(seconds, lambda shown=shown: shown)
        seconds += _frame_seconds(picture)


def _animation_seconds(picture: Image.Image) -> float:
    seconds = 0.0
    first = _first_frame(picture)
    for index in range(first, first + _num_frames(picture)):
        picture.seek(index)
        picture.load()  # a WebP knows how long a frame lasts once it is decoded
        seconds += _frame_seconds(picture)
    return seconds


def _frame_seconds(picture: Image.Image) -> float:
    """How long the frame at hand is shown. Many GIFs say 0 or nothing, which browsers show for a tenth of a second."""
    return (picture.info.get("duration", 0) or _UNTIMED_MILLISECONDS) / 1000


__all__ = [
    "VIDEO_SUFFIXES",
    "TimedFrames",
    "film_seconds",
    "is_animated",
    "open_container",
    "open_film",
    "sample_frames",
    "sample_in_steps",
]
