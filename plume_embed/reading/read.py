"""A file -> its items, each decoded when its turn comes.

Texts are read here; whatever has a decoder is read in a process of its own, with limits.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain

from plume_embed import __version__
from plume_embed.reading.bounded import LimitError, ProcessLimits, iterate_limited
from plume_embed.reading.items import FileItem, Kind, SourceFile, UnreadableError, date_of
from plume_embed.reading.options import Decoded, Options, Outline, kind_of
from plume_embed.reading.passages import read_passages
from plume_embed.reading.pixels import with_pictures

# Plain text as a person reads it. Markup whose tags outweigh its words (html, xml) is left out on purpose.
TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst", ".csv", ".tsv", ".json", ".jsonl"})
READ_LIMITS = ProcessLimits(seconds=10, memory=3 * 2**29)
# What judges a file: raise the last number where files can be read that could not, and every index tries them again.
READER = f"{__version__}.2"
# Items of one file that may break a limit, each after its own seconds, before the rest of the file is given up.
_BROKEN_ITEMS = 3


def kind_by_suffix(suffix: str) -> Kind | None:
    """What a file holds, by its suffix in small letters; `None` for what is not read."""
    return "text" if suffix in TEXT_SUFFIXES else kind_of(suffix)


def read_items(
    file: SourceFile,
    fits: Callable[[str], bool],
    options: Options,
    skip: frozenset[int] = frozenset(),
    limits: ProcessLimits = READ_LIMITS,
) -> Iterator[FileItem]:
    """The items of a file in their order, each decoded when its turn comes.

    An item whose decoder is ended from outside is decoded once more.

    Args:
        file ([`SourceFile`]): As listed; refused if it has changed since.
        fits: Whether a text is short enough for one item.
        options ([`Options`]): Of the processor; see [`Options.of`].
        skip: Numbers of items that are not wanted.
        limits ([`ProcessLimits`]): On the time and memory of decoding one item, or of a film one second of it.

    Raises:
        UnreadableError: the file as a whole cannot be read.
    """
    if file.size == 0 and file.absolute.is_file():  # whatever a decoder would say of it; a pipe has no size either
        raise UnreadableError("empty")
    items = read_passages(file, fits, skip) if file.kind == "text" else _media_items(file, options, skip, limits)
    for item in items:
        check_unchanged(file)
        yield item


def items_of(answers: Iterator[Outline | Decoded | None], skip: frozenset[int] = frozenset()) -> Iterator[FileItem]:
    """What [`decode`] gives, as items."""
    outline = next(answers)
    count = len(outline.locators)
    numbers = (number for number in range(count) if number not in skip)
    for number, one in zip(numbers, (one for one in answers if one is not None), strict=True):
        locator = outline.locators[number]
        yield FileItem(number, count, locator, outline.kind, one.snippet, one.content, one.reason)


def _media_items(file: SourceFile, options: Options, skip: frozenset[int], limits: ProcessLimits) -> Iterator[FileItem]:
    from plume_embed.reading.decode import (
        decode_to_arrays,  # with all decoders; a run that finds nothing new needs none
    )

    outline, done, broken, cut_short_at = None, set(skip), 0, None
    shrink, options = options.shrink, replace(options, shrink=None)
    while outline is None or len(done) < len(outline.locators):
        with closing(iterate_limited(decode_to_arrays, file, options, frozenset(done), limits=limits)) as answers:
            try:
                outline = next(answers)
                for item in items_of(chain([outline], answers), frozenset(done)):
                    done.add(item.number)
                    yield _at_its_size(item, shrink) if item.content else item
                return
            except LimitError as error:
                if error.is_from_outside and cut_short_at != len(done):
                    cut_short_at = len(done)  # that item once more
                    continue
                broken += 1
                if outline is None or broken > _BROKEN_ITEMS or len(outline.locators) == 1:
                    raise UnreadableError(str(error), error.is_from_outside) from error
                died_of = error
            except ValueError as error:
                raise UnreadableError(str(error).replace(str(file.absolute), "it")) from error
        # The item that it died of; those behind it are read by another process.
        number = next(number for number in range(len(outline.locators)) if number not in done)
        done.add(number)
        count, locator = len(outline.locators), outline.locators[number]
        reason = str(died_of) if locator else f"as a whole, {died_of}"  # its clips may be read
        yield FileItem(number, count, locator, outline.kind, "", None, reason, died_of.is_from_outside)


def _at_its_size(item: FileItem, shrink: Callable[[dict], dict] | None) -> FileItem:
    try:
        return replace(item, content=with_pictures(shrink(item.content) if shrink else item.content))
    except ValueError as error:  # of a shape that the model does not take; the others of its file are read
        return replace(item, content=None, reason=str(error))


def check_unchanged(file: SourceFile) -> None:
    """Refuses a file that is not as it was listed.

    Raises:
        UnreadableError: its size or date is another one, or it is gone.
    """
    try:
        status = file.absolute.stat()
    except OSError as error:
        raise UnreadableError(str(error.strerror)) from error
    if (status.st_size, date_of(status)) != (file.size, file.mtime_ns):
        raise UnreadableError("it has changed since it was listed; run again")
