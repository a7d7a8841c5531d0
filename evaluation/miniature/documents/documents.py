"""The part "documents": VisDoc, a path of headings -> the page, or the half page, on which the last one starts.

Manuals are disjoint: what is tested was never trained on, so that all tasks are "unseen". A heading whose title occurs
in training and in test ("Introduction") is asked in neither.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from multiprocessing.pool import Pool
from pathlib import Path

from rich.progress import track

from evaluation.miniature.documents.manuals import (
    DOCUMENT_PACKAGES,
    TEST_MANUALS,
    TRAIN_MANUALS,
    Document,
    Heading,
    Manual,
    encoded,
    without_shared,
)
from evaluation.miniature.documents.pairs import content_words, pairs
from evaluation.miniature.documents.tasks import Shown, crop_id, page_id, tasks
from evaluation.miniature.parts import Context
from evaluation.miniature.sources.packages import fetch
from evaluation.miniature.sources.rationales import stable_order
from plume_embed.evaluation.miniature.schema import Built
from plume_embed.pools import end_with_parent

MOST_TEST_PAGES = 900
QUERIES_OF_MANUAL = 60
PAGES_OF_TRAIN_MANUAL = 45
HEADINGS_OF_PAGE = 2


def build(context: Context) -> Built:
    """The part "documents".

    Raises:
        ValueError: a manual cannot be read, or there are more test pages than MOST_TEST_PAGES.
        FetchError: a package that cannot be had.
    """
    folders = fetch(list(DOCUMENT_PACKAGES.values()), context.cache)
    manuals = (*TRAIN_MANUALS, *TEST_MANUALS)
    files = {manual.name: folders[manual.package] / manual.file for manual in manuals}
    built = build_from(TRAIN_MANUALS, TEST_MANUALS, files, context.processes)
    built.packages = {package.spec: package.sha256 for package in DOCUMENT_PACKAGES.values()}
    return built


def build_from(train: Sequence[Manual], test: Sequence[Manual], files: Mapping[str, Path], processes: int = 2) -> Built:
    """Tasks about some manuals, pairs about others; `files` are their PDFs by name.

    Raises:
        ValueError: see `build`.
    """
    with multiprocessing.Pool(processes, end_with_parent) as pool:
        read = _mapped(pool, _read, [(manual.name, files[manual.name]) for manual in (*train, *test)], "headings")
        sets = [[heading for manual in manuals for heading in read[manual.name].headings] for manuals in (train, test)]
        asked: dict[str, list[Heading]] = {name: [] for name in read}
        for heading in (heading for members in without_shared(sets) for heading in members):
            asked[heading.manual].append(heading)
        jobs = []
        for manual in (*train, *test):
            shown = Shown(sampled(asked[manual.name], manual in train), read[manual.name].num_pages)
            every = range(shown.num_pages) if manual in test else sorted({h.page for h in shown.headings})
            jobs.append((manual.name, files[manual.name], shown, list(every), manual in train))
        number = sum(len(every) for *_, every, in_train in jobs if not in_train)
        if number > MOST_TEST_PAGES:
            raise ValueError(f"the test manuals have {number} pages, more than {MOST_TEST_PAGES}: take some out.")
        shown = _mapped(pool, _render, jobs, "pages")
    built = Built()
    for name, manual in shown.items():
        built.media |= {page_id(name, page): [data] for page, data in manual.pages.items()}
        built.media |= {crop_id(name, place): [data] for place, data in manual.crops.items()}
    built.tasks = tasks({manual.name: shown[manual.name] for manual in test})
    for manual in train:
        built.pairs += pairs(manual, shown[manual.name])
    return built


def sampled(headings: Sequence[Heading], is_train: bool) -> list[Heading]:
    """The headings of one manual that are asked for, in their order: of some pages in training, of all in test."""
    numbered = {f"{h.manual} {h.page} {h.text}": h for h in headings}
    chosen = stable_order(numbered, "headings")
    if not is_train:
        kept = set(chosen[:QUERIES_OF_MANUAL])
        return [heading for name, heading in numbered.items() if name in kept]
    pages = {f"{h.manual} {h.page}" for h in headings}
    pages = set(stable_order(pages, "pages")[:PAGES_OF_TRAIN_MANUAL])
    taken: Counter[str] = Counter()
    kept = set()
    for name in chosen:
        page = f"{numbered[name].manual} {numbered[name].page}"
        if page in pages and taken[page] < HEADINGS_OF_PAGE:
            taken[page] += 1
            kept.add(name)
    return [heading for name, heading in numbered.items() if name in kept]


def _read(job: tuple[str, Path]) -> tuple[str, Shown]:
    name, file = job
    with closing(Document(name, file)) as document:
        return name, Shown(document.headings(), len(document))


def _render(job: tuple[str, Path, Shown, list[int], bool]) -> tuple[str, Shown]:
    name, file, shown, pages, in_train = job
    crops = dict(enumerate(shown.headings))
    if in_train:  # one of a page is enough, and half the pixels
        crops = {n: heading for n, heading in crops.items() if not n or shown.headings[n - 1].page != heading.page}
    with closing(Document(name, file)) as document:
        shown.pages = {page: encoded(document.render_page(page)) for page in pages}
        shown.crops = {n: encoded(document.render_crop(heading)) for n, heading in crops.items()}
        if in_train:
            shown.page_words = {page: content_words(document.text(page)) for page in pages}
            shown.crop_words = {n: content_words(document.text(h.page, h.top))[:200] for n, h in crops.items()}
    return name, shown


def _mapped(pool: Pool, function: Callable, jobs: Sequence, what: str) -> dict[str, Shown]:
    """Results by name, in the order of the jobs, with a progress bar."""
    return dict(track(pool.imap(function, jobs), description=f"{what:<12}", total=len(jobs)))
