"""How long a visitor waits for a first result over own files: `python -m space.tools.upload_time [--rounds 3]`.

Uploads files of each kind to a new session of the Space's service, without the page in front, and searches as soon as
the first of them can be found. Prints the median and the longest of the rounds, for the first file and for all of them.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.indexing import write_films, write_pdfs, write_texts
from benchmarks.large_photographs import write_photographs
from space.app import make_service
from space.content.uploads import Upload
from space.service import Query, Service
from space.settings import Settings
from space.trace import finish

KINDS: dict[str, tuple[Callable[[Path, int], object], int]] = {
    "photographs of 12 megapixels": (write_photographs, 8),
    "PDFs of four pages": (write_pdfs, 16),
    "films of eight seconds": (write_films, 2),
    "texts": (write_texts, 8),
}


def wait(service: Service, name: str, files: list[Path]) -> tuple[float, float]:
    """Seconds from the upload of these files to the first result over them, and to the end of the upload, the search
    left out. At least two files.
    """
    session, corpus = service.sessions.of(name), service.corpora[0]
    uploads = []
    for number, file in enumerate(files):
        target = service.sessions.upload_folder / name / str(number) / file.name
        target.parent.mkdir(parents=True)
        shutil.copyfile(file, target)
        uploads.append(Upload(target, file.name))
    began, first, asking = time.perf_counter(), None, 0.0
    adding = service.add(session, corpus, uploads)
    while True:
        try:
            next(adding)
        except StopIteration as end:
            if end.value:
                raise SystemExit(f"error: refused: {end.value}") from None
            break
        if first is None and session.own(corpus.id):
            added = time.perf_counter()
            finish(service.query(session, Query(corpus, "a lake", None, None, 0)))
            first = time.perf_counter() - began
            asking = time.perf_counter() - added
    last = time.perf_counter() - began - asking
    service.sessions.end(name)
    if first is None:
        raise ValueError("One file says nothing about a first one: give several.")
    return first, last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        service = make_service(Path(folder) / "uploads", Settings(data=Path(folder) / "data"))
        for corpus in service.corpora:
            corpus.collection.wait(600)
        for kind, (write, count) in KINDS.items():
            files = Path(folder) / kind
            files.mkdir()
            write(files, count)
            paths = sorted(files.iterdir())
            found = [wait(service, f"{kind.split()[0]}{turn}", paths) for turn in range(arguments.rounds)]
            first, last = zip(*found, strict=True)
            print(
                f"{len(paths)} {kind}: first result {statistics.median(first):.1f} s (longest {max(first):.1f}), "
                f"all of them {statistics.median(last):.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
