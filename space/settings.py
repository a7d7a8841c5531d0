"""Every limit and number of the Space, in one place; the page states them to its visitors."""

import os
from dataclasses import dataclass
from pathlib import Path

MEGABYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """What a visitor may hand over, and how long it may take.

    Args:
        file_bytes (`int`): Of one file.
        request_bytes (`int`): Of all files that are sent together.
        pixels (`int`): Width times height of a picture.
        film_pixels (`int`): Of a film's frame; all frames that are looked at are in memory together.
        pages (`int`): Of a PDF, or of a TIFF with several.
        film_frames (`int`): Of a film, all of them, not only those that are looked at.
        files_at_once (`int`): Files that are added to a private collection together.
        items (`int`): Pictures, films, pages and passages in a private collection.
        text_characters (`int`): Of a query.
        name_characters (`int`): Of a file's name, as far as it is shown.
        decode_seconds (`int`): For reading one file, in a process of its own.
        decode_bytes (`int`): Memory which that process may take beyond what it starts with.
        upload_folder_bytes (`int`): Of all visitors' files that are waiting to be read, together.
        json_bytes (`int`): Of a request that is no upload.
        clip_bytes (`int`): Of the small copy of a private film that the page plays.
    """

    file_bytes: int = 20 * MEGABYTE
    request_bytes: int = 60 * MEGABYTE
    pixels: int = 25_000_000
    film_pixels: int = 1920 * 1088
    pages: int = 20
    film_frames: int = 3_000
    files_at_once: int = 10
    items: int = 60
    text_characters: int = 2_000
    name_characters: int = 80
    decode_seconds: int = 20
    decode_bytes: int = 1024 * MEGABYTE
    upload_folder_bytes: int = 1024 * MEGABYTE
    json_bytes: int = 256 * 1024
    clip_bytes: int = 2 * MEGABYTE

    def sentence(self) -> str:
        """For the page."""
        return (
            f"Pictures, films, PDFs and texts, up to {self.file_bytes // MEGABYTE} MB each, {self.files_at_once} at "
            f"a time; pictures up to {self.pixels // 1_000_000} megapixels, PDFs up to {self.pages} pages, films up to "
            f"{self.film_frames:,} frames of {self.film_pixels / 1e6:.1f} megapixels; {self.items} of them in all, "
            "counting every page and passage."
        )


@dataclass(frozen=True)
class Settings:
    """How the Space runs.

    Args:
        data (`Path`): Where the bundled collection and its index are kept.
        results (`int`): Shown for a query.
        at_a_time (`int`): Queries that are computed at the same time; the others wait in the queue.
        queue (`int`): Queries that may wait; whoever comes then is told that it is full.
        sessions (`int`): Sessions that are remembered at most; the one seen longest ago goes first.
        session_seconds (`int`): After which a silent session is forgotten, should its end have gone unnoticed.
        shown (`int`): Candidates in the charts of the rollout, and results of a variant.
        timed_runs (`int`): Of which the diagnostics give the median times.
        rationale_tokens (`int`): Where an explicit rationale is cut.
        limits ([`Limits`])
    """

    data: Path
    results: int = 12
    at_a_time: int = 2
    queue: int = 40
    sessions: int = 200
    session_seconds: int = 3600
    shown: int = 5
    timed_runs: int = 5
    rationale_tokens: int = 128
    limits: Limits = Limits()

    def keeping_sentence(self) -> str:
        """For the page: how long a visitor's own files stay."""
        return (
            f"They are gone when you leave the page, when you have done nothing here for {self.session_seconds // 60} "
            f"minutes, or when {self.sessions} others have come after you."
        )

    @classmethod
    def from_environment(cls) -> "Settings":
        """PLUME_SPACE_DATA says where the index is; by default in the bundle, or in `.data/space` of a checkout."""
        here = Path(__file__).parent
        built = here / "index"  # by tools/bundle.py
        default = built if built.is_dir() else here.parent / ".data" / "space"
        return cls(data=Path(os.environ.get("PLUME_SPACE_DATA") or default))
