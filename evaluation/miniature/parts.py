"""What every builder of tasks gets, and the form of a builder: a function `(Context) -> Built`.

`build.PARTS` lists the builders by name: another one is one line there. A part's media go to `media/PART-*.parquet`;
what an earlier run of the same part wrote is removed before it is written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.miniature.sources.concepts import Concept
from plume_embed.evaluation.miniature.schema import Built


@dataclass(frozen=True)
class Still:
    """One rendered picture.

    Attributes:
        concept: What it shows.
        style: A key of `sources.STYLE_PACKAGES`.
        data: PNG or WebP bytes.
        digest: Hash of its pixels, see `render.picture_hash`.
    """

    concept: Concept
    style: str
    data: bytes
    digest: str

    @property
    def id(self) -> str:
        """Its id as a medium: `STYLE/HEXCODE`."""
        return f"{self.style}/{self.concept.hexcode}"


@dataclass(frozen=True)
class Context:
    """What a builder works with.

    Attributes:
        concepts: All concepts, toned ones included, in emojibase's order.
        stills: For each style its rendered pictures by hexcode.
        sources: For each style SVG source text or the path of a picture file by hexcode; see `render.render_cutout`.
        cache: Folder of the fetched packages; see `sources.fetch`.
        size: Side of the stills in pixels.
        seed: Of every choice that is not a stable hash.
        processes: Number of worker processes a builder may use.
        options: Choices of single parts, by name.
    """

    concepts: tuple[Concept, ...]
    stills: Mapping[str, Mapping[str, Still]]
    sources: Mapping[str, Mapping[str, str | Path]]
    cache: Path
    size: int = 84
    seed: int = 0
    processes: int = 2
    options: Mapping[str, str] = field(default_factory=dict)


Part = Callable[[Context], Built]
