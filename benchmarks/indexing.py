"""Where indexing spends its CPU time, by stage and kind of file, beside a loop of sentence-transformers. Linux only.

    python -m benchmarks.indexing --json benchmarks/results/indexing.json

The files are made here from seeds: photographs of 12 megapixels, PDFs, films, texts. First each stage runs alone, one
file after the other. Then `update_index`, which is what `plume-embed index` calls, and `SentenceTransformer.encode`
take turns over the same files, each in a process of its own, which has loaded its model: the one of `index` is set up
as the command is. The loop has no way to read a PDF. The table has CPU seconds, those of the decoding process included:
on a shared machine the clock, which the JSON has too, says little.
"""

import json
import multiprocessing
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import av
import psutil
import torch
import typer
from PIL import Image, ImageDraw

from benchmarks.large_photographs import ROOT, photograph, write_photographs
from plume_embed.atomic import write_json
from plume_embed.encode.encoder import Encoder
from plume_embed.freed_memory import keep_freed_memory
from plume_embed.index.listing import list_folder
from plume_embed.index.pipeline import content_digest
from plume_embed.index.search import describe
from plume_embed.index.store import Index
from plume_embed.index.update import update_index
from plume_embed.pools import end_with_parent
from plume_embed.reading.bounded import iterate_limited, warm_up
from plume_embed.reading.decode import decode_to_arrays
from plume_embed.reading.items import SourceFile
from plume_embed.reading.options import Decoded, Options
from plume_embed.reading.pixels import with_pictures
from plume_embed.reading.read import READ_LIMITS, read_items

STAGES = ("read", "decode", "hand over", "resize", "digest", "processor", "model", "write")
GIVEN_BACK = "model, freed memory given back"  # in a process that is not set up as the command is
_WORDS = ("river", "stone", "winter", "a", "the", "near", "market", "green", "boats", "slowly", "under", "of")
_BATCH = 32


def write_texts(folder: Path, count: int) -> None:
    """Texts of one passage."""
    for number in range(count):
        words = random.Random(number).choices(_WORDS, k=180)
        (folder / f"{number}.txt").write_text(" ".join(words))


def write_pdfs(folder: Path, count: int) -> None:
    """Pages of four to a PDF, each a picture with lines of text on it."""
    for number in range(0, count, 4):
        pages = []
        for page in range(number, min(number + 4, count)):
            sheet = Image.new("RGB", (1240, 1754), "white")
            sheet.paste(photograph(page).resize((800, 600)), (220, 100))
            lines = "\n".join(" ".join(random.Random(page * 99 + line).choices(_WORDS, k=12)) for line in range(30))
            ImageDraw.Draw(sheet).text((120, 800), lines, fill="black", font_size=24)
            pages.append(sheet)
        pages[0].save(folder / f"{number}.pdf", save_all=True, append_images=pages[1:], resolution=150)


def write_films(folder: Path, count: int) -> None:
    """Films of eight seconds: a view of 1280 x 720 that moves over a photograph."""
    for number in range(count):
        picture = photograph(number)
        with av.open(str(folder / f"{number}.mp4"), "w") as film:
            stream = film.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 1280, 720, "yuv420p", 8_000_000
            for step in range(200):
                view = picture.crop((4 * step, 2 * step, 4 * step + 1280, 2 * step + 720))
                film.mux(stream.encode(av.VideoFrame.from_image(view)))
            film.mux(stream.encode())


KINDS: dict[str, tuple[Callable[[Path, int], Any], str]] = {
    "photographs": (write_photographs, "image"),
    "pages of PDFs": (write_pdfs, ""),
    "films": (write_films, "video"),
    "texts": (write_texts, "text"),
}


def stages(folder: Path, encoder: Encoder, database: Path) -> dict[str, float]:
    """CPU milliseconds of an item in each stage, alone and one file after the other."""
    used: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = _cpu_seconds()
        yield
        used[stage] += _cpu_seconds() - start

    warm_up()
    shrunk, rows, vectors = [], [], []
    files = list_folder(folder).files
    with timed("read"):
        for file in files:
            file.absolute.read_bytes()
    options = replace(Options.of(encoder.processor), shrink=None)
    with timed("decode"):
        for file in files:
            if file.kind == "text":
                shrunk += [item.content for item in read_items(file, encoder.fits, options) if item.content]
    for file in files:
        for content in [] if file.kind == "text" else _contents(file, options, timed):
            with timed("resize"):
                shrunk.append(with_pictures(encoder.processor.shrunk(content)))
    with timed("digest"):
        for content in shrunk:
            content_digest(content)
    for start in range(0, len(shrunk), _BATCH):
        with timed("processor"):
            batch = encoder.process(shrunk[start : start + _BATCH])
        with timed("model"):
            vectors += list(encoder.embed(batch, encoder.document_latent_steps()))
    index = Index(database, describe(encoder), encoder.dimension)
    now, names = datetime.now(UTC), ("kind", "locator", "snippet")
    for number, vector in enumerate(vectors):
        row = dict.fromkeys(names, "") | {
            "vector": vector,
            "content": f"{number}",
            "item": 0,
            "digest": f"{number:032}",
        }
        rows.append({**row, "embedded_at": now})
    with timed("write"):
        for start in range(0, len(rows), _BATCH):
            index.add_items(rows[start : start + _BATCH])
    if used["hand over"]:  # texts have none
        used["hand over"] = max(0.0, used["hand over"] - used["decode"])
    return {stage: 1000 * used[stage] / len(shrunk) for stage in STAGES}


def _contents(file: SourceFile, options: Options, timed: Callable) -> list[dict]:
    """What is in a file, at its full size. What the process for it takes beyond the decoding is the hand-over."""
    with timed("hand over"):
        for _ in iterate_limited(decode_to_arrays, file, options, frozenset(), limits=READ_LIMITS):
            pass
    with timed("decode"):
        decoded = [one for one in decode_to_arrays(file, options, frozenset()) if isinstance(one, Decoded)]
    return [one.content for one in decoded if one.content]


class _Way:
    """One of the two, in a process of its own with its model; what is imported and made once counts for neither.

    Args:
        load (`Callable`): Loads the model there.
        run (`Callable`): Embeds a folder with it, given a scratch folder and the files' key; gives the number of items.
    """

    model: Any = None  # in that process

    def __init__(self, load: Callable[[Path], Any], run: Callable[[Path, Path, str], int], model: Path):
        self._run = run
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _set_up, (load, model))

    def __enter__(self) -> "_Way":
        self._pool.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.shutdown()

    def __call__(self, folder: Path, work: Path, key: str) -> dict[str, float]:
        return self._pool.submit(_measured, self._run, folder, work, key).result()

    def stages(self, folder: Path, database: Path) -> dict[str, float]:
        return self._pool.submit(_stages, folder, database).result()


def _set_up(load: Callable[[Path], Any], model: Path) -> None:
    end_with_parent()
    torch.set_num_threads(1)
    _Way.model = load(model)


def _stages(folder: Path, database: Path) -> dict[str, float]:
    return stages(folder, _Way.model, database)


def _load_as_the_command(model: Path) -> Encoder:
    keep_freed_memory()
    return _load_encoder(model)


def _load_encoder(model: Path) -> Encoder:
    return Encoder(model, device="cpu")


def _load_sentence_transformer(model: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(model), device="cpu")


def _index(folder: Path, work: Path, key: str) -> int:
    return update_index(folder, Path(tempfile.mkdtemp(dir=work)) / "index", _Way.model).num_items


def _loop(folder: Path, work: Path, key: str) -> int:
    files = sorted(folder.iterdir())
    _Way.model.encode([file.read_text() if key == "text" else {key: str(file)} for file in files], batch_size=_BATCH)
    return len(files)


def _measured(run: Callable[[Path, Path, str], int], folder: Path, work: Path, key: str) -> dict[str, float]:
    start, cpu = time.perf_counter(), _cpu_seconds()
    count = run(folder, work, key)
    seconds, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
    return {"items": count, "seconds": seconds, "cpu_seconds": cpu}


def _cpu_seconds() -> float:
    """Of this process and of those that it has started."""
    here = psutil.Process()
    while True:
        try:
            return time.process_time() + sum(sum(one.cpu_times()[:4]) for one in here.children(recursive=True))
        except psutil.NoSuchProcess:  # the fork of a decoder has ended meanwhile; its time is its parent's now
            continue


def measure(model: Path, counts: dict[str, int], rounds: int) -> dict[str, Any]:
    """Every kind of file: its stages, and the two ways in turns."""
    kinds = {}
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        index = stack.enter_context(_Way(_load_as_the_command, _index, model))
        gives_back = stack.enter_context(_Way(_load_encoder, _index, model))
        loop = stack.enter_context(_Way(_load_sentence_transformer, _loop, model))
        for write, key in (KINDS["texts"], KINDS["photographs"]):  # decoding processes wait for the next files
            few = work / f"few-{key}"
            few.mkdir()
            write(few, 4)
            for way in (index, loop):
                way(few, work, key)
        for kind, count in counts.items():
            write, key = KINDS[kind]
            folder = work / kind.replace(" ", "-")
            folder.mkdir()
            write(folder, count)
            by_stage = index.stages(folder, work / f"{folder.name}-index")
            by_stage[GIVEN_BACK] = gives_back.stages(folder, work / f"{folder.name}-other-index")["model"]
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(index(folder, work, key))
                if key:
                    theirs.append(loop(folder, work, key))
            kinds[kind] = {"stages_cpu_ms": by_stage, "index": ours, "sentence_transformers": theirs}
            print(kind, json.dumps(kinds[kind]), flush=True)
    return {"model": model.name, "rounds": rounds, "kinds": kinds}


def markdown(report: dict[str, Any]) -> str:
    """The tables of the documents."""
    names = (*STAGES, GIVEN_BACK)
    lines = [f"| CPU ms an item, {report['model']} | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for kind, found in report["kinds"].items():
        most = max(STAGES, key=lambda stage, found=found: found["stages_cpu_ms"][stage])
        cells = [f"{found['stages_cpu_ms'][stage]:.1f}" for stage in names]
        lines.append(
            f"| {kind} | {' | '.join(f'**{c}**' if s == most else c for s, c in zip(names, cells, strict=True))} |"
        )
    lines += ["", "| | items | a CPU second | sentence-transformers, a CPU second | ratio | ratio by the clock |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for kind, found in report["kinds"].items():
        ours, theirs = found["index"], found["sentence_transformers"]
        cells = [kind, f"{ours[0]['items']}", f"{_rate(ours, 'cpu_seconds'):.1f}"]
        if theirs:
            cells.append(f"{_rate(theirs, 'cpu_seconds'):.1f}")
            cells += [f"{_rate(ours, clock) / _rate(theirs, clock):.2f}" for clock in ("cpu_seconds", "seconds")]
        lines.append(f"| {' | '.join([*cells, *[''] * (6 - len(cells))])} |")
    return "\n".join(lines)


def _rate(runs: list[dict[str, float]], clock: str) -> float:
    """Items a second of a clock, over all rounds."""
    return sum(run["items"] for run in runs) / sum(run[clock] for run in runs)


def main(
    model: Annotated[Path, typer.Option(help="Model folder.")] = ROOT / "checkpoints" / "plume-small",
    photographs: Annotated[int, typer.Option(min=1)] = 16,
    pages: Annotated[int, typer.Option(min=1)] = 16,
    films: Annotated[int, typer.Option(min=1)] = 6,
    texts: Annotated[int, typer.Option(min=1)] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="In which the two ways take turns.")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the result there.")] = None,
) -> None:
    """Measures indexing by kind of file."""
    report = measure(model, dict(zip(KINDS, (photographs, pages, films, texts), strict=True)), rounds)
    typer.echo(markdown(report))
    if json_file is not None:
        write_json(json_file, report)


if __name__ == "__main__":
    typer.run(main)
