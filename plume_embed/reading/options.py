"""How files are to be decoded, and what a decoder gives; light, for whoever asks and need not decode."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from plume_embed.model.images_plume import IMAGE_SUFFIXES
from plume_embed.model.videos_plume import VIDEO_SUFFIXES
from plume_embed.reading.items import Kind


class MediaReader(Protocol):
    """How a model wants its files read; [`PlumeProcessor`] is one, and says what these are."""

    @property
    def num_frames(self) -> int | None:
        """Frames of a film."""
        ...

    @property
    def fps(self) -> float | None:
        """Frames for each second, instead."""
        ...

    @property
    def max_image_pixels(self) -> int:
        """Most pixels of a picture or a frame."""
        ...

    @property
    def page_words(self) -> int:
        """Words of a page's text that go with it."""
        ...

    @property
    def sees_times(self) -> bool:
        """Whether it matters when a film's frames are shown."""
        ...

    def shrunk(self, content: dict[str, Any]) -> dict[str, Any]:
        """The item with its pictures no larger than the model looks at them; its vector is the same.

        Args:
            content (`dict`): As [`PlumeProcessor`] takes it; pictures and frames as arrays [H, W, 3].
        """
        ...


@dataclass(frozen=True)
class Options:
    """How files are decoded.

    Args:
        num_frames (`int`, *optional*): Frames of a film, or of a clip of a long one.
        max_pixels (`int`): Most pixels of a picture or a frame.
        shrink (`Callable`, *optional*): Applied to each item's content as soon as it is decoded; see [`MediaReader`].
        fps (`float`, *optional*): Frames for each second, instead of `num_frames`.
        page_words (`int`): Words of a page's text layer that go with its picture.
        with_times (`bool`): Whether films are [`TimedFrames`]. Else two films of the same frames are the same.
    """

    num_frames: int | None
    max_pixels: int
    shrink: Callable[[dict], dict] | None = None
    fps: float | None = None
    page_words: int = 0
    with_times: bool = False

    @classmethod
    def of(cls, processor: MediaReader) -> "Options":
        """For items that this processor will process: decoded as it would, and at the size it looks at them."""
        limits = (processor.num_frames, processor.max_image_pixels, processor.shrunk, processor.fps)
        return cls(*limits, page_words=processor.page_words, with_times=processor.sees_times)

    def frames_of(self, seconds: float) -> int:
        """How many frames a film of this length gives."""
        return self.num_frames if self.fps is None else max(1, round(seconds * self.fps))


@dataclass(frozen=True)
class Outline:
    """The items of a file before any is decoded: their kind, and a locator for each."""

    kind: Kind
    locators: list[str]


@dataclass(frozen=True)
class Decoded:
    """An item: what the processor takes, or the reason why it cannot be read."""

    content: dict | None
    snippet: str = ""
    reason: str = ""


def kind_of(suffix: str) -> Kind | None:
    """What the items of a file are, by its suffix in small letters; `None` if it is none of these."""
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "page" if suffix == ".pdf" else None
