"""Films as clips, as long texts are read as passages: a moment of two seconds fills a good part of one clip."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path

from PIL import Image

from plume_embed.model.videos_plume import TimedFrames, open_film

# In a film up to this length eight frames show a moment of two seconds at least once, and it is a fifth of the film.
# With plume-tiny the cosine between such a moment and a film of 10 seconds is 0.50, of 20 seconds 0.35, and between the
# moment and the clip that shows it 0.6 to 0.7 in films of any length.
SHORT_SECONDS = 10
WHOLE_SECONDS = 60  # films up to this length are an item as a whole too
CLIP_SECONDS = 5
# Each clip shares a second with the next: whatever two seconds a person looks for, one clip has three quarters of them.
STRIDE_SECONDS = 4

Window = tuple[float, float]


def clip_windows(seconds: float) -> list[Window]:
    """The clips of a film as (start, end) in seconds, none for a short film.

    They cover the film; the last one is shorter, and longer than the second that it shares with the one before.
    """
    if seconds <= SHORT_SECONDS:
        return []
    count = math.ceil((seconds - CLIP_SECONDS) / STRIDE_SECONDS) + 1
    starts = [STRIDE_SECONDS * number for number in range(count)]
    return [(start, min(start + CLIP_SECONDS, seconds)) for start in starts]


def clip_locator(window: Window) -> str:
    """A clip's locator, in whole seconds: "time=12-17"."""
    return f"time={window[0]:.0f}-{math.ceil(window[1])}"


def read_clips(path: Path, windows: Sequence[Window], num_frames: int, max_pixels: int) -> Iterator[TimedFrames | None]:
    """The frames of each clip, in the order of the clips; the film is decoded once, from its start.

    A `None` comes each time that another second of the film has been decoded: the way to the first clip may be long.

    A clip is looked at in `num_frames` moments, evenly spaced; each gives the frame that is shown at that moment. A
    frame that is shown for long is there once. Times are those of a film that begins with the clip: a frame that is
    there already then has the time 0.

    Args:
        windows: Sorted by their starts.
        num_frames (`int`): Most frames of a clip.
        max_pixels (`int`): Most pixels of a frame.
    """
    moments = sorted((moment, clip) for clip, window in enumerate(windows) for moment in _moments(window, num_frames))
    missing = [num_frames] * len(windows)
    shown: list[list[tuple[Image.Image, float]]] = [[] for _ in windows]  # the frames of each clip with their times
    place = given = 0
    with open_film(path, max_pixels) as film:
        for frame, next_frame in pairwise(chain(film.frames, [None])):
            if frame.begins_second:
                yield None
            until, picture = next_frame.seconds if next_frame else math.inf, None
            while place < len(moments) and moments[place][0] < until:
                clip = moments[place][1]
                picture = picture or frame.picture()
                if not shown[clip] or shown[clip][-1][0] is not picture:
                    shown[clip].append((picture, max(0.0, frame.seconds - windows[clip][0])))
                missing[clip] -= 1
                place += 1
            while given < len(windows) and missing[given] == 0:
                yield TimedFrames(*zip(*shown[given], strict=True))
                shown[given] = []
                given += 1
            if given == len(windows):
                return


def _moments(window: Window, num_frames: int) -> list[float]:
    start, end = window
    return [start + (end - start) * (number + 0.5) / num_frames for number in range(num_frames)]
