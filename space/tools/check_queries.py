"""Prints what each prepared query finds first: `python -m space.tools.check_queries [MODEL]`. 1: one falls short.

The lists are those of `space/corpora.json`: what visitors can try with one click, and what the tests ask.
"""

import argparse
from pathlib import Path

from space.content.corpora import ROOT, Corpus, PreparedQuery, load_corpora
from space.content.items import Hit
from space.content.sessions import Session
from space.content.uploads import Upload
from space.service import Query, Service
from space.trace import finish

ENOUGH_OF_TEN = 8


def ask(service: Service, corpus: Corpus, query: PreparedQuery) -> list[Hit]:
    """What a query finds."""
    image, video = (Upload(ROOT / name, Path(name).name) if name else None for name in (query.image, query.video))
    return finish(service.query(Session(), Query(corpus, query.text, image, video, corpus.default_steps))).hits


def check(service: Service, corpus: Corpus) -> bool:
    """Prints every prepared query of a collection; whether enough of each kind find the right item first."""
    right: dict[str, list[bool]] = {}
    for query in corpus.spec.prepared:
        hits = ask(service, corpus, query)
        rank = next((place for place, hit in enumerate(hits, start=1) if query.is_right(hit.item)), None)
        right.setdefault(query.kind, []).append(rank == 1)
        first = ", ".join(f"{hit.item.name} {hit.score:.3f}" for hit in hits[:3])
        print(f"{'ok  ' if rank == 1 else 'MISS'} {query.label:36s} {'*' if query.example else ' '} {first}")
    for kind, found in right.items():
        print(f"{corpus.spec.label}, {kind}: {sum(found)} of {len(found)} first")
    return all(10 * sum(found) >= ENOUGH_OF_TEN * len(found) for found in right.values())


def main() -> None:
    import tempfile

    from space.settings import Settings

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model that serves all collections")
    model = parser.parse_args().model
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder) / "data")
        service = Service(settings, load_corpora(settings, model), Path(folder) / "uploads")
        for corpus in service.corpora:
            corpus.collection.build()
        is_enough = [check(service, corpus) for corpus in service.corpora]
    if not all(is_enough):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
