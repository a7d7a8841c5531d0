"""Films for the page: browsers play H.264 in MP4; whatever else was uploaded is transcoded, small and short.

Transcoding decodes what a stranger uploaded, so it runs in the process with limits, as reading does.
"""

import io
import math
from fractions import Fraction
from pathlib import Path

import av

PLAYED_CODECS = frozenset({"h264", "vp8", "vp9", "av1"})
PLAYED_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
LONG_SIDE = 480
FRAMES_PER_SECOND = 12
SECONDS = 20


def is_played_by_browsers(path: Path) -> bool:
    """Whether Chromium, Firefox and Safari play the file as it is: by container, codec and pixel format.

    Raises:
        ValueError: it is no film.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError("it holds no film")
            context = container.streams.video[0].codec_context
            is_webm = container.format.name == PLAYED_FORMATS[1] and path.suffix.lower() == ".webm"
            is_mp4 = container.format.name == PLAYED_FORMATS[0]
            return (is_webm or is_mp4) and context.name in PLAYED_CODECS and context.pix_fmt in ("yuv420p", "yuvj420p")
    except av.FFmpegError as error:
        raise ValueError("it is damaged or truncated") from error


def playable_copy(path: Path, always: bool = False) -> bytes | None:
    """The film as H.264 in MP4: at most `LONG_SIDE` pixels, `FRAMES_PER_SECOND` and `SECONDS`, without sound.

    Args:
        path (`Path`): Of the film.
        always (`bool`): Also where browsers play the file itself, for a copy that is small.

    Returns:
        `bytes`, or `None` where the file itself can be played.

    Raises:
        ValueError: it is no film, or damaged.
    """
    if not always and is_played_by_browsers(path):
        return None
    out = io.BytesIO()
    try:
        with av.open(str(path)) as source, av.open(out, "w", format="mp4") as target:
            _transcode(source, target)
    except av.FFmpegError as error:
        raise ValueError("it is damaged or truncated") from error
    return out.getvalue()


def _transcode(source: av.container.InputContainer, target: av.container.OutputContainer) -> None:
    stream = source.streams.video[0]
    scale = min(1.0, LONG_SIDE / max(stream.width, stream.height))
    encoded = target.add_stream("libx264", rate=FRAMES_PER_SECOND)
    encoded.width, encoded.height = (max(2, 2 * math.floor(side * scale / 2)) for side in (stream.width, stream.height))
    encoded.pix_fmt = "yuv420p"
    encoded.options = {"crf": "28", "preset": "veryfast", "threads": "1"}
    num_written = 0
    rate = float(stream.average_rate or FRAMES_PER_SECOND)
    for index, frame in enumerate(source.decode(stream)):
        seconds = frame.time if frame.time is not None else index / rate
        if seconds >= SECONDS:
            break
        # A frame stands until the next one is due: slow films repeat frames, fast ones lose some.
        while num_written <= seconds * FRAMES_PER_SECOND:
            small = frame.reformat(width=encoded.width, height=encoded.height, format="yuv420p")
            small.pts = num_written
            small.time_base = Fraction(1, FRAMES_PER_SECOND)
            target.mux(encoded.encode(small))
            num_written += 1
    if not num_written:
        raise ValueError("it holds no frame that can be decoded")
    target.mux(encoded.encode())
