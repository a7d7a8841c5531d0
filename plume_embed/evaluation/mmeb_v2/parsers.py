"""The parser of each family, by the name that tasks.json gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import MappingProxyType

from plume_embed.evaluation.mmeb_v2 import parsers_image, parsers_video, parsers_visdoc
from plume_embed.evaluation.mmeb_v2.items import Candidate, Query
from plume_embed.evaluation.mmeb_v2.media import Media
from plume_embed.evaluation.mmeb_v2.rows import Rows
from plume_embed.evaluation.mmeb_v2.tasks import Task, Variant

Parser = Callable[[Task, Variant, Rows, Media], tuple[Iterator[Query], list[Candidate]]]

PARSERS: MappingProxyType[str, Parser] = MappingProxyType(
    {
        **dict.fromkeys(("image_cls", "image_i2t", "image_qa"), parsers_image.parse_image_to_text),
        "image_t2i": parsers_image.parse_text_to_image,
        "image_i2i_vg": parsers_image.parse_image_to_image,
        "video_classification": parsers_video.parse_classification,
        "ssv2": parsers_video.parse_ssv2,
        **dict.fromkeys(("mvbench", "videomme", "nextqa", "egoschema", "activitynetqa"), parsers_video.parse_question),
        **dict.fromkeys(("didemo", "msrvtt", "msvd", "vatex", "youcook2"), parsers_video.parse_retrieval),
        "moment_retrieval": parsers_video.parse_moments,
        "momentseeker": parsers_video.parse_momentseeker,
        **dict.fromkeys(("vidore", "visrag"), parsers_visdoc.parse_documents),
    }
)


def parse(task: Task, variant: Variant, rows: Rows, media: Media) -> tuple[Iterator[Query], list[Candidate]]:
    """A task's queries, one by one, and the candidates that no row names (the corpus).

    Raises:
        ValueError: rows or media that do not make up the task, naming the row.
    """
    with _as_a_reason("the rows"):
        queries, corpus = PARSERS[task.parser](task, variant, rows, media)
    return _numbered(queries), corpus


def _numbered(queries: Iterator[Query]) -> Iterator[Query]:
    """The queries; what a row of other types raises names the row."""
    for number in count():
        with _as_a_reason(f"row {number}"):
            query = next(queries, None)
        if query is None:
            return
        yield query


@contextmanager
def _as_a_reason(where: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"{where}: a column holds values of another kind than the benchmark's: {error}") from error
