"""The two visual-document parsers: queries, qrels and corpus in BEIR's three tables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from datasets import Dataset

from plume_embed.evaluation.mmeb_v2.items import IMAGE, Candidate, Item, Key, Query
from plume_embed.evaluation.mmeb_v2.media import Media
from plume_embed.evaluation.mmeb_v2.rows import Rows
from plume_embed.evaluation.mmeb_v2.tasks import Task, Variant

_LONGEST_STEM = 50


def parse_documents(task: Task, variant: Variant, rows: Rows, media: Media) -> tuple[Iterator[Query], list[Candidate]]:
    """vidore and visrag: a text; the candidates are all pages of the corpus, known by their id.

    The two differ in how a page's file is named: CORPUS-ID.png, or the first 50 characters of the id's stem and eight
    of its MD5, because VisRAG's ids are file names of any length.

    Raises:
        ValueError: a query without a relevant page, a relevant page that is not in the corpus, no pages.
    """
    corpus_rows = rows.table("corpus")
    if len(corpus_rows) == 0:
        raise ValueError("the corpus has no pages")
    text = f"{IMAGE} {task.target_instruction(variant)}"
    corpus: dict[Key, Candidate] = {}
    for number, key in enumerate(corpus_rows["corpus-id"]):
        name = page_file(key) if task.parser == "visrag" else f"{key}.png"
        path = media.page(name, lambda number=number: corpus_rows[number]["image"])
        corpus.setdefault(key, Candidate(key, Item(text, path, "image")))

    def queries() -> Iterator[Query]:
        relevant = relevance(rows.table("qrels"))
        instruction = task.instruction(variant)
        table = rows.table("queries").select_columns(["query-id", "query"])
        for row in table:
            grades = relevant.get(row["query-id"])
            if not grades:
                raise ValueError(f"query {row['query-id']} has no page with a positive score in the qrels")
            unknown = [key for key in grades if key not in corpus]
            if unknown:
                raise ValueError(f"query {row['query-id']}: its page {unknown[0]} is not in the corpus")
            query = Item(f"{instruction} {row['query']}" if row["query"] else instruction)
            candidates = tuple(corpus[key] for key in grades)
            yield Query(query, candidates, tuple(grades), tuple(grades.values()))

    return queries(), list(corpus.values())


def relevance(qrels: Dataset) -> dict[Key, dict[Key, int]]:
    """Grades by page by query: scores of zero and less dropped, the higher of duplicates kept."""
    grades: dict[Key, dict[Key, int]] = {}
    for query, page, score in zip(qrels["query-id"], qrels["corpus-id"], qrels["score"], strict=True):
        if score > 0:
            of_query = grades.setdefault(query, {})
            of_query[page] = max(score, of_query.get(page, 0))
    return grades


def page_file(corpus_id: str) -> str:
    """The file name of a VisRAG page."""
    stem, suffix = os.path.splitext(corpus_id)
    digest = hashlib.md5(corpus_id.encode(), usedforsecurity=False).hexdigest()[:8]
    return f"{stem[:_LONGEST_STEM]}_{digest}{suffix}"
