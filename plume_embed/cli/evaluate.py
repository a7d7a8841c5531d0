"""`plume-embed evaluate` with its benchmarks: `mmeb-v2`, `miniature` and `photos`.

Heavy imports stand inside the commands. An expected error is a ValueError or OSError, for the caller to print.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plume_embed.atomic import write_json, write_text
from plume_embed.cli.console import error_line, make_console, progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from plume_embed.encode.encoder import Encoder
    from plume_embed.evaluation.embedders import Embedder
    from plume_embed.evaluation.mmeb_v2.run import Outcome
    from plume_embed.evaluation.mmeb_v2.tasks import Task

app = typer.Typer(
    name="evaluate",
    help="Score a model: MMEB-v2 (78 tasks), the miniature benchmark that can be built offline, or photographs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_Model = Annotated[
    str | None,
    typer.Option(help="PLUME model folder or Hub id. Default: $PLUME_MODEL, then plume-tiny.", metavar="DIR|ID"),
]
_Steps = Annotated[int | None, typer.Option(min=0, help="K, the latent steps. Default: the model's own.")]
_Paradigm = Annotated[str, typer.Option(help="latent (K steps), single (one pass) or cot (explicit rationale).")]
_MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Where a rationale of cot is cut. Default: 512.")]
_Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: cuda where there is one.")]
_Dtype = Annotated[str, typer.Option(help="auto (as stored), float32, bfloat16 or float16.")]
_TrustCode = Annotated[bool, typer.Option("--trust-remote-code", help="Let a peer run code of its own folder.")]


@app.command(
    "mmeb-v2",
    epilog="Example: plume-embed evaluate mmeb-v2 --media-dir data --modality image --out results. "
    "Several processes: accelerate launch -m plume_embed evaluate mmeb-v2 ...",
)
def mmeb_v2(
    out: Annotated[Path, typer.Option(help="Where scores, predictions, summary and cached embeddings go.")] = Path(
        "mmeb-v2-results"
    ),
    media_dir: Annotated[
        Path | None, typer.Option(help="Folder with image-tasks, video-tasks and visdoc-tasks.", metavar="DIR")
    ] = None,
    hub_dir: Annotated[
        Path | None, typer.Option(help="Mirror of the data sets, ORG/NAME below it. Default: the Hub.", metavar="DIR")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Names of tasks, with commas between. Default: all 78.")] = None,
    modality: Annotated[list[str] | None, typer.Option(help="image, video or visdoc; again for more.")] = None,
    variant: Annotated[
        str, typer.Option(help="Version of the benchmark: fixed (page labels of November 2025), original or plume.")
    ] = "fixed",
    check: Annotated[bool, typer.Option("--check", help="Only list what data and media are missing.")] = False,
    model: _Model = None,
    peer: Annotated[
        str | None, typer.Option(help="Any model of sentence-transformers, instead of --model.", metavar="DIR|ID")
    ] = None,
    embeddings_dir: Annotated[
        Path | None, typer.Option(help="Score stored embeddings: TASK.npz with TASK_cand_keys.json.", metavar="DIR")
    ] = None,
    paradigm: _Paradigm = "latent",
    latent_steps: _Steps = None,
    max_new_tokens: _MaxNewTokens = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Items per pass; lower it if you run out of memory.")] = 8,
    device: _Device = None,
    dtype: _Dtype = "auto",
    trust_remote_code: _TrustCode = False,
) -> None:
    """Score a model on MMEB-v2, or stored embeddings without a model.

    It can be killed at any moment: run it again and it goes on where it was. Exits with 1 if a task failed.
    """
    from plume_embed.evaluation.embedders import latent_steps_of
    from plume_embed.evaluation.mmeb_v2.tasks import select_tasks, variant_named

    chosen = select_tasks(None if tasks is None else tasks.split(","), modality or None)
    version = variant_named(variant)
    latent_steps_of(paradigm, latent_steps)
    if sum(given is not None for given in (model, peer, embeddings_dir)) > 1:
        raise ValueError("Give one of --model, --peer and --embeddings-dir.")
    _quiet_libraries()
    if check:
        raise typer.Exit(_check(chosen, version, hub_dir, media_dir))
    from plume_embed.evaluation.distributed import Ranks
    from plume_embed.evaluation.embedders import PlumeEmbedder, SentenceTransformerEmbedder
    from plume_embed.evaluation.mmeb_v2 import report
    from plume_embed.evaluation.mmeb_v2.run import Settings, evaluate, stamp_of

    embedder: Embedder | None = None
    if peer is not None:
        embedder = SentenceTransformerEmbedder(peer, device, trust_remote_code)
    elif embeddings_dir is None:
        embedder = PlumeEmbedder(model, paradigm, latent_steps, device, dtype, max_new_tokens)
    settings = Settings(version, media_dir, out, hub_dir, embeddings_dir, batch_size)
    ranks = Ranks()
    console = make_console(quiet=not ranks.is_main)
    bar = progress_bar("embedding", "items") if ranks.is_main else nullcontext(lambda done, total: None)
    with bar as on_progress:
        outcomes = evaluate(chosen, settings, embedder, ranks, lambda outcome: _print(console, outcome), on_progress)
    stamp = stamp_of(settings, embedder)
    column = report.run_column(outcomes, stamp)
    lines = report.notes(outcomes, column)
    if ranks.is_main:
        write_json(out / "summary.json", report.summary_json(outcomes, column, stamp))
        write_text(out / "summary.md", report.summary_markdown(column, lines))
        console.print(report.summary_table(column, chosen, f"MMEB-v2 [{version}], percent"), soft_wrap=False)
        for line in lines:
            console.print(f"- {line}")
        console.print(f"written: {out / 'summary.md'}, {out / 'summary.json'}")
    ranks.close()
    if any(outcome.failure is not None for outcome in outcomes):
        raise typer.Exit(1)


@app.command(epilog="Example: plume-embed evaluate miniature --steps 0,2,4,6,8,cot --plot tradeoff.svg")
def miniature(
    data: Annotated[Path, typer.Option(help="What `make miniature` wrote.", metavar="DIR")] = Path(".data/miniature"),
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="PLUME model folder or Hub id; again for more. Default: $PLUME_MODEL, then plume-tiny. With @ behind "
            "it, steps of its own, as in --steps: DIR@cot, DIR@0,8.",
            metavar="DIR|ID[@STEPS]",
        ),
    ] = None,
    peer: Annotated[
        list[str] | None, typer.Option(help="Any model of sentence-transformers; again for more.", metavar="DIR|ID")
    ] = None,
    paradigm: _Paradigm = "latent",
    latent_steps: _Steps = None,
    steps: Annotated[
        str | None,
        typer.Option(help="Several in one table, e.g. 0,2,4,6,8,cot: K, 0 for the single pass, cot for a rationale."),
    ] = None,
    max_new_tokens: _MaxNewTokens = None,
    tasks: Annotated[
        list[str] | None, typer.Option(help='Name of a task, e.g. "I-RET/edit hard"; again for more. Default: all.')
    ] = None,
    meta: Annotated[str | None, typer.Option(help="Meta-tasks, e.g. I-CLS,VisDoc. Default: all nine.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw accuracy against latency: .svg, .png or .pdf.", metavar="FILE")
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap samples for the intervals.")] = 2000,
    latency_rounds: Annotated[int, typer.Option(min=0, help="How often latency is measured; 0: not at all.")] = 3,
    keep: Annotated[
        Path | None, typer.Option(help="Keep each model's scores here, and take those that are there.", metavar="DIR")
    ] = None,
    json_to: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Items per pass; lower it if you run out of memory.")] = 32,
    device: _Device = None,
    dtype: _Dtype = "auto",
    trust_remote_code: _TrustCode = False,
) -> None:
    """The miniature's nine meta-tasks with 95 % intervals, beside peers and the pixel baseline.

    Exits with 1 if a task failed.
    """
    from plume_embed.evaluation.embedders import PlumeEmbedder, SentenceTransformerEmbedder, latent_steps_of

    if steps is None:
        wanted = [(paradigm, latent_steps_of(paradigm, latent_steps) or None)]
    elif latent_steps is not None or paradigm != "latent":
        raise ValueError("Give either --steps or --paradigm with --latent-steps.")
    else:
        wanted = [_way(word) for word in steps.split(",")]
    _quiet_libraries()
    from plume_embed.encode.encoder import Encoder
    from plume_embed.evaluation.miniature import report as miniature_report
    from plume_embed.evaluation.miniature import run as miniature_run
    from plume_embed.evaluation.miniature.schema import read_tasks
    from plume_embed.evaluation.miniature.store import ScoreStore
    from plume_embed.evaluation.tradeoff import check_format, write_plot

    if plot is not None:
        check_format(plot)
    everything = read_tasks(data)
    chosen = miniature_run.select(everything, tasks or None, None if meta is None else meta.split(","))
    embedders: list[Embedder] = []
    for name, own in map(_model_and_steps, model or [None]):
        encoder = Encoder(name, device, dtype)
        ways = wanted if own is None else [_way(word) for word in own.split(",")]
        embedders += [PlumeEmbedder(encoder, way, number, max_new_tokens=max_new_tokens) for way, number in ways]
    embedders += [SentenceTransformerEmbedder(name, device, trust_remote_code) for name in peer or ()]
    kept = None if keep is None else ScoreStore(keep, data, chosen)
    console = make_console()
    with progress_bar("embedding", "items") as on_progress:
        found = miniature_run.evaluate(
            data, embedders, chosen, batch_size, latency_rounds=latency_rounds, on_progress=on_progress, kept=kept
        )
    conditions = _conditions(encoder, batch_size) | {"latency_rounds": latency_rounds}
    report = miniature_report.as_dict(*found, everything, conditions, resamples)
    console.print(miniature_report.table(report), soft_wrap=False)
    for line in miniature_report.notes(report):
        console.print(f"- {error_line(line)}")
    if json_to is not None:
        write_json(json_to, report)
        console.print(f"written: {json_to}")
    if plot is not None:
        console.print(f"written: {write_plot(report, plot)}")
    if any(result["failed"] for result in report["models"]):
        raise typer.Exit(1)


@app.command(epilog="Example: plume-embed evaluate photos --model checkpoints/plume-small@0,8 --json photos.json")
def photos(
    data: Annotated[Path, typer.Option(help="What `make photos` wrote.", metavar="DIR")] = Path(".data/photos"),
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="PLUME model folder or Hub id; again for more. With @ behind it, several K: DIR@0,8. Default: "
            "$PLUME_MODEL, then the bundled one.",
            metavar="DIR|ID[@STEPS]",
        ),
    ] = None,
    peer: Annotated[
        list[str] | None, typer.Option(help="Any model of sentence-transformers; again for more.", metavar="DIR|ID")
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap samples for the intervals.")] = 2000,
    json_to: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Items per pass; lower it if you run out of memory.")] = 32,
    device: _Device = None,
    dtype: _Dtype = "auto",
    trust_remote_code: _TrustCode = False,
) -> None:
    """Real photographs found by captions and sentences, and the other way round, beside stored peers and chance."""
    _quiet_libraries()
    from plume_embed.encode.encoder import Encoder
    from plume_embed.evaluation.embedders import PlumeEmbedder, SentenceTransformerEmbedder
    from plume_embed.evaluation.photos import report as photos_report
    from plume_embed.evaluation.photos.benchmark import digest, read_tasks
    from plume_embed.evaluation.photos.run import evaluate, stored_peers

    tasks = read_tasks(data)
    embedders: list[Embedder] = []
    for name, steps in map(_model_and_steps, model or [None]):
        encoder = Encoder(name, device, dtype)
        ways = [("latent", None)] if steps is None else [_way(word) for word in steps.split(",")]
        embedders += [PlumeEmbedder(encoder, way, number) for way, number in ways]
    embedders += [SentenceTransformerEmbedder(name, device, trust_remote_code) for name in peer or ()]
    console = make_console()
    with progress_bar("embedding", "items") as on_progress:
        contestants = evaluate(tasks, embedders, batch_size, on_progress)
    conditions = _conditions(encoder, batch_size) | {"benchmark": digest(data)}
    report = photos_report.as_dict(tasks, contestants + stored_peers(tasks, data), conditions, resamples)
    for table in photos_report.tables(report):
        console.print(table, soft_wrap=False)
    if json_to is not None:
        write_json(json_to, report)
        console.print(f"written: {json_to}")


def _check(tasks: list[Task], variant: str, hub_dir: Path | None, media_dir: Path | None) -> int:
    from plume_embed.evaluation.mmeb_v2.check import check_tasks

    if media_dir is None:
        raise ValueError("The media folder is missing: pass --media-dir.")
    console, ready = make_console(), 0
    for checked in check_tasks(tasks, variant, hub_dir, media_dir):
        ready += checked.is_ready
        if checked.failure is not None:
            told = f"NOT READY: {error_line(checked.failure)}"
        else:
            told = "ready" if checked.is_ready else f"NOT READY: {len(checked.missing):,} media missing"
            told += f"; {checked.num_queries:,} of {checked.task.num_queries:,} queries"
            told += f", {checked.num_candidates:,} candidates"
            told += f", {checked.to_write:,} pages to write from the corpus" if checked.to_write else ""
        console.print(f"{checked.task.name}: {told}")
        for missing in checked.missing[:3]:
            console.print(f"    {error_line(missing)}")
        if len(checked.missing) > 3:
            console.print(f"    and {len(checked.missing) - 3:,} more")
    console.print(f"{ready} of {len(tasks)} tasks are ready")
    return 0 if ready == len(tasks) else 1


def _print(console: Console, outcome: Outcome) -> None:
    task = outcome.task
    if outcome.failure is not None:
        console.print(f"{task.name}: FAILED: {error_line(outcome.failure)}")
    elif outcome.scores is not None:
        scores = outcome.scores
        speed = ""
        if scores["ms_per_item"] is not None:
            speed = f", {scores['ms_per_item']:.1f} ms per item in batches of {scores['batch_size']}"
        counts = f"{scores['num_data']:,} queries, {scores['num_candidates']:,} candidates"
        console.print(f"{task.name}: {task.score_key} {100 * scores[task.score_key]:.2f} ({counts}{speed})")


def _model_and_steps(given: str | None) -> tuple[str | None, str | None]:
    """`DIR@STEPS` as the model and its steps; an @ within a folder's name is none of these."""
    name, at, steps = (given or "").rpartition("@")
    if at and re.fullmatch(r"(cot|\d+)(,(cot|\d+))*", steps):
        return name, steps
    return given, None


def _way(word: str) -> tuple[str, int | None]:
    """A word of --steps as paradigm and K."""
    if word.strip() == "cot":
        return "cot", None
    try:
        number = int(word)
    except ValueError as error:
        raise ValueError(f"--steps takes whole numbers and cot with commas between, got {word!r}.") from error
    return ("latent", number) if number else ("single", None)


def _conditions(encoder: Encoder, batch_size: int) -> dict[str, str | int]:
    """What a latency depends on besides the model."""
    import torch
    import transformers

    is_cuda = encoder.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(encoder.device) if is_cuda else encoder.device.type,
        "dtype": str(encoder.model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _quiet_libraries() -> None:
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
