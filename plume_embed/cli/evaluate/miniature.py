"""`plume-embed evaluate miniature`: the models, the evaluation, what is printed and written, in that order."""

from pathlib import Path
from typing import Annotated, Any

import typer

from plume_embed.atomic import write_json
from plume_embed.cli.console import make_console, progress_bar
from plume_embed.cli.evaluate.contestants import ModelOptions, Variant, load_contestants, parse_steps
from plume_embed.cli.extras import extra
from plume_embed.cli.loading import heavy_imports
from plume_embed.cli.options import (
    BatchOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    MaxNewTokensOption,
    ParadigmOption,
    PeersOption,
    ResamplesOption,
    StepsOption,
    TrustCodeOption,
    named_folder,
)
from plume_embed.command import error_line
from plume_embed.outputs import check_output, check_output_folder


@extra("eval")
def miniature(
    data: Annotated[
        Path, typer.Option(help="Folder that `make miniature` wrote, from the checkout's root.", metavar="DIR")
    ] = Path(".data/miniature"),
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="PLUME model folder or Hub id; repeatable. Default: $PLUME_MODEL, then plume-small. "
            "DIR@STEPS sets --steps for this model: DIR@cot, DIR@0,8.",
            metavar="DIR|ID[@STEPS]",
        ),
    ] = None,
    peer: PeersOption = None,
    paradigm: ParadigmOption = "latent",
    latent_steps: StepsOption = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help="Several in one table, e.g. 0,8,cot,anchor,z1: K, 0 for the single pass, cot for a rationale; anchor "
            "and z1 are read there instead."
        ),
    ] = None,
    max_new_tokens: MaxNewTokensOption = None,
    tasks: Annotated[
        list[str] | None, typer.Option(help='Name of a task, e.g. "I-RET/edit hard"; repeatable. Default: all.')
    ] = None,
    meta: Annotated[str | None, typer.Option(help="Meta-tasks, e.g. I-CLS,VisDoc. Default: all nine.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw accuracy against latency: .svg, .png or .pdf.", metavar="FILE")
    ] = None,
    resamples: ResamplesOption = 2000,
    latency_rounds: Annotated[int, typer.Option(min=0, help="Rounds of the latency measurement; 0 turns it off.")] = 3,
    keep: Annotated[
        Path | None,
        typer.Option(help="Cache each model's scores here, and reuse those found.", metavar="DIR", parser=named_folder),
    ] = None,
    json_to: JsonOption = None,
    batch_size: BatchOption = 32,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    trust_remote_code: TrustCodeOption = False,
) -> None:
    """The miniature's nine meta-tasks with 95 % intervals, beside peers and the pixel baseline.

    Exits with 1 if a task failed.
    """
    check_output(json_to, "--json")
    check_output(plot, "--plot")
    check_output_folder(keep, "--keep")
    with heavy_imports():
        from plume_embed.evaluation.miniature import report as miniature_report
        from plume_embed.evaluation.miniature.run import evaluate, select
        from plume_embed.evaluation.miniature.schema import read_tasks
        from plume_embed.evaluation.miniature.store import ScoreStore
        from plume_embed.evaluation.tradeoff import check_format, what_to_plot, write_plot
        from plume_embed.quiet import quiet_libraries

        quiet_libraries()
    variants = _variants(steps, paradigm, latent_steps)
    if plot is not None:
        check_format(plot)
    everything = read_tasks(data)
    chosen = select(everything, tasks or None, None if meta is None else meta.split(","))
    of = None if plot is None else what_to_plot(chosen, everything)
    if plot is not None and not latency_rounds:
        raise ValueError("--plot draws a score against a latency: give --latency-rounds a number from 1.")
    options = ModelOptions(device, dtype, max_new_tokens, trust_remote_code)
    embedders, conditions = load_contestants(model or [None], peer or [], variants, options)
    kept = None if keep is None else ScoreStore(keep, data, chosen)
    with progress_bar("embedding", "items") as on_progress:
        found = evaluate(
            data, embedders, chosen, batch_size, latency_rounds=latency_rounds, on_progress=on_progress, kept=kept
        )
    conditions |= {"batch_size": batch_size, "latency_rounds": latency_rounds}
    report = miniature_report.as_dict(*found, everything, conditions, resamples)
    _print(report)
    _write(report, json_to)
    if any(result["failed"] for result in report["models"]):
        raise typer.Exit(1)
    if plot is not None and of is not None:
        make_console().print(f"written: {write_plot(report, plot, of=of)}")


def _variants(steps: str | None, paradigm: str, latent_steps: int | None) -> list[Variant]:
    """What models without steps of their own are evaluated as."""
    from plume_embed.evaluation.embedders import latent_steps_of

    if steps is None:
        return [(paradigm, latent_steps_of(paradigm, latent_steps) or None)]
    if latent_steps is not None or paradigm != "latent":
        raise ValueError("Give either --steps or --paradigm with --latent-steps.")
    return parse_steps(steps)


def _print(report: dict[str, Any]) -> None:
    from plume_embed.evaluation.miniature.report import notes, table

    console = make_console()
    console.print(table(report), soft_wrap=False)
    for line in notes(report):
        console.print(f"- {error_line(line)}")


def _write(report: dict[str, Any], json_to: Path | None) -> None:
    if json_to is not None:
        write_json(json_to, report)
        make_console().print(f"written: {json_to}")
