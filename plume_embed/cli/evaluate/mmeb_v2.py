"""`plume-embed evaluate mmeb-v2`: what is missing, or the models, the evaluation and its summary, in that order."""

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plume_embed.atomic import write_json, write_text
from plume_embed.cli.console import counted, make_console, progress_bar
from plume_embed.cli.evaluate.contestants import ModelOptions, check_options
from plume_embed.cli.extras import extra
from plume_embed.cli.loading import heavy_imports
from plume_embed.cli.options import (
    BatchOption,
    DeviceOption,
    DtypeOption,
    MaxNewTokensOption,
    ModelOption,
    ParadigmOption,
    StepsOption,
    TrustCodeOption,
    named_folder,
)
from plume_embed.command import error_line, one_line
from plume_embed.outputs import check_output_folder

if TYPE_CHECKING:
    from rich.console import Console

    from plume_embed.evaluation.embedders import Embedder
    from plume_embed.evaluation.mmeb_v2.run import Outcome, Settings
    from plume_embed.evaluation.mmeb_v2.tasks import Task, Variant


@extra("eval")
def mmeb_v2(
    out: Annotated[
        Path,
        typer.Option(
            help="Output folder: scores, predictions, summary, cached embeddings.", metavar="DIR", parser=named_folder
        ),
    ] = Path("mmeb-v2-results"),
    media_dir: Annotated[
        Path | None, typer.Option(help="Folder with image-tasks, video-tasks and visdoc-tasks.", metavar="DIR")
    ] = None,
    hub_dir: Annotated[
        Path | None, typer.Option(help="Mirror of the data sets, ORG/NAME below it. Default: the Hub.", metavar="DIR")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Names of tasks, separated by commas. Default: all 78.")] = None,
    modality: Annotated[
        list[str] | None, typer.Option(help="image, video or visdoc; repeatable. Default: all.")
    ] = None,
    variant: Annotated[
        str, typer.Option(help="Version of the benchmark: fixed (page labels of November 2025), original or plume.")
    ] = "fixed",
    check: Annotated[bool, typer.Option("--check", help="Only list what data and media are missing.")] = False,
    model: ModelOption = None,
    peer: Annotated[
        str | None, typer.Option(help="Another model of sentence-transformers, instead of --model.", metavar="DIR|ID")
    ] = None,
    embeddings_dir: Annotated[
        Path | None, typer.Option(help="Score stored embeddings: TASK.npz with TASK_cand_keys.json.", metavar="DIR")
    ] = None,
    paradigm: ParadigmOption = "latent",
    latent_steps: StepsOption = None,
    max_new_tokens: MaxNewTokensOption = None,
    batch_size: BatchOption = 8,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    trust_remote_code: TrustCodeOption = False,
) -> None:
    """Score a model on MMEB-v2, or stored embeddings without a model.

    It can be interrupted at any moment: run it again and it continues. The summary is of all tasks that OUT has scores
    of. Exits with 1 if a task failed.
    """
    check_output_folder(None if check else out, "--out")
    with heavy_imports():
        from plume_embed.evaluation.embedders import PlumeEmbedder, SentenceTransformerEmbedder, latent_steps_of
        from plume_embed.evaluation.mmeb_v2.run import Settings
        from plume_embed.evaluation.mmeb_v2.tasks import select_tasks, variant_named
        from plume_embed.quiet import quiet_libraries

        quiet_libraries()
    chosen = select_tasks(None if tasks is None else tasks.split(","), modality or None)
    version = variant_named(variant)
    latent_steps_of(paradigm, latent_steps)
    if sum(given is not None for given in (model, peer, embeddings_dir)) > 1:
        raise ValueError("Give one of --model, --peer and --embeddings-dir.")
    if peer is not None or embeddings_dir is not None:
        of_plume = {
            "--paradigm": paradigm != "latent",
            "--latent-steps": latent_steps is not None,
            "--max-new-tokens": max_new_tokens is not None,
            "--dtype": dtype != "auto" and peer is None,
            "--device": device is not None and peer is None,
        }
        given = [name for name, is_given in of_plume.items() if is_given]
        if given:
            instead = "--peer" if peer is not None else "--embeddings-dir"
            raise ValueError(f"{', '.join(given)}: for PLUME models, without effect on {instead}; leave it out.")
    options = ModelOptions(device, dtype, max_new_tokens, trust_remote_code)
    check_options(options, [(paradigm, latent_steps)], [] if peer is None else [peer])
    if check:
        raise typer.Exit(_check(chosen, version, hub_dir, media_dir))
    embedder: Embedder | None = None
    if peer is not None:
        # The benchmark's texts hold its instructions: a prompt of the model's own would be a second one.
        embedder = SentenceTransformerEmbedder(peer, device, trust_remote_code, dtype, own_prompts=False)
    elif embeddings_dir is None:
        embedder = PlumeEmbedder(model, paradigm, latent_steps, device, dtype, max_new_tokens)
    outcomes = _evaluate(chosen, Settings(version, media_dir, out, hub_dir, embeddings_dir, batch_size), embedder)
    if any(outcome.failure is not None for outcome in outcomes):
        raise typer.Exit(1)


def _check(tasks: "list[Task]", variant: "Variant", hub_dir: Path | None, media_dir: Path | None) -> int:
    """Prints what is missing; the exit code."""
    from plume_embed.evaluation.mmeb_v2.check import check_tasks

    if media_dir is None:
        raise ValueError("The media folder is missing: pass --media-dir.")
    for name, folder in (("--media-dir", media_dir), ("--hub-dir", hub_dir)):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"No such folder: {folder}; pass another to {name}.")
    console, ready = make_console(), 0
    lacking = _missing_roots(tasks, media_dir)
    for folder, number in lacking.items():
        console.print(f"no folder {one_line(folder)}: all media of {counted(number, 'task')} would be in it")
    for checked in check_tasks(tasks, variant, hub_dir, media_dir):
        ready += checked.is_ready
        if checked.failure is not None:
            state = f"NOT READY: {error_line(checked.failure)}"
        else:
            state = "ready" if checked.is_ready else f"NOT READY: {len(checked.missing):,} media missing"
            state += f"; {checked.num_queries:,} of {checked.task.num_queries:,} queries"
            state += f", {checked.num_candidates:,} candidates"
            state += f", {checked.to_write:,} pages to write from the corpus" if checked.to_write else ""
        console.print(f"{checked.task.name}: {state}")
        if _roots(checked.task, media_dir) in lacking:
            continue
        for missing in checked.missing[:3]:
            console.print(f"    {error_line(missing)}")
        if len(checked.missing) > 3:
            console.print(f"    and {len(checked.missing) - 3:,} more")
    console.print(f"{ready} of {len(tasks)} tasks are ready")
    return 0 if ready == len(tasks) else 1


def _missing_roots(tasks: "list[Task]", media_dir: Path) -> dict[str, int]:
    """Folders that are not there, each with the number of tasks that look nowhere else."""
    gone = [task for task in tasks if not any((media_dir / root).is_dir() for root in task.media_roots)]
    return dict(Counter(_roots(task, media_dir) for task in gone))


def _roots(task: "Task", media_dir: Path) -> str:
    return " or ".join(str(media_dir / root) for root in task.media_roots)


def _evaluate(tasks: "list[Task]", settings: "Settings", embedder: "Embedder | None") -> "list[Outcome]":
    """Evaluates in all processes of this run; the main one prints and writes."""
    from plume_embed.evaluation.distributed import Ranks
    from plume_embed.evaluation.mmeb_v2.run import evaluate

    ranks = Ranks()
    console = make_console(quiet=not ranks.is_main)
    bar = progress_bar("embedding", "items") if ranks.is_main else nullcontext(lambda done, total: None)
    with bar as on_progress:
        outcomes = evaluate(tasks, settings, embedder, ranks, lambda outcome: _print(console, outcome), on_progress)
    if ranks.is_main:
        _summarize(console, tasks, settings, embedder, outcomes)
    ranks.close()
    return outcomes


def _summarize(
    console: "Console",
    tasks: "list[Task]",
    settings: "Settings",
    embedder: "Embedder | None",
    outcomes: "list[Outcome]",
) -> None:
    from plume_embed.evaluation.mmeb_v2 import report
    from plume_embed.evaluation.mmeb_v2.run import stamp_of, with_earlier

    stamp, outcomes = stamp_of(settings, embedder), with_earlier(settings.out, outcomes)
    column = report.run_column(outcomes, stamp)
    lines = report.notes(outcomes, column)
    write_json(settings.out / "summary.json", report.summary_json(outcomes, column, stamp))
    write_text(settings.out / "summary.md", report.summary_markdown(column, lines))
    console.print(report.summary_table(column, tasks, f"MMEB-v2 [{settings.variant}], percent"), soft_wrap=False)
    for line in lines:
        console.print(f"- {line}")
    console.print(f"written: {settings.out / 'summary.md'}, {settings.out / 'summary.json'}")


def _print(console: "Console", outcome: "Outcome") -> None:
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
