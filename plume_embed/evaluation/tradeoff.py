"""Accuracy against latency over the paradigms, as in the paper's figure 1.

`python -m plume_embed.evaluation.tradeoff FILE.json OUT` draws it of written results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plume_embed.atomic import replacing
from plume_embed.command import run_command
from plume_embed.evaluation.embedders import read_out_label
from plume_embed.evaluation.miniature.report import BENCHMARK, MEAN
from plume_embed.evaluation.miniature.schema import META_TASKS, Task
from plume_embed.evaluation.written import read_results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# From this ratio of the slowest to the fastest model on, a linear axis would press the fast ones together.
_FAR = 8
_COLOURS = {None: "tab:grey", "latent": "tab:blue", "single": "tab:green", "cot": "tab:red"}
_COLOURS |= {"anchor": "tab:orange", "state": "tab:purple"}
_LABELS = {"latent": "latent steps", "single": "single pass", "cot": "explicit CoT", None: "other models"}
_LABELS |= {"anchor": "read at the anchor", "state": "read at z(k)"}


def check_format(file: Path) -> None:
    """Whether a plot can be drawn there, to be asked before hours of work.

    Raises:
        ValueError: matplotlib is missing, or the suffix is no format of its.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise ValueError("A plot needs matplotlib: pip install plume-embed[eval].") from error
    known = FigureCanvasAgg.get_supported_filetypes()
    if file.suffix.removeprefix(".") not in known:
        raise ValueError(f"A plot is one of {', '.join(sorted(known))}, got {file.name}.")


def what_to_plot(chosen: Sequence[Task], everything: Sequence[Task]) -> str:
    """What these tasks have a mean of: [`MEAN`] of all nine meta-tasks, or the only one that they are.

    Raises:
        ValueError: they have neither, and there is nothing to plot.
    """
    names = {task.meta for task in chosen}
    whole = all(task in chosen for task in everything if task.meta in names)
    if whole and names == {*META_TASKS}:
        return MEAN
    if whole and len(names) == 1:
        return names.pop()
    raise ValueError(
        "--plot draws the mean of all nine meta-tasks, or one whole meta-task: leave --tasks out, and give --meta one "
        "or none."
    )


def write_plot(report: Mapping[str, Any], file: Path, batch_size: int | None = None, of: str = MEAN) -> Path:
    """Draws the mean of the nine meta-tasks with its interval over ms per item; the points of one model are joined.

    Args:
        report: What `miniature_report.as_dict` gives.
        file: Its suffix decides the format: svg, png, pdf.
        batch_size: Which latency; the smallest batch that was measured if left out.
        of: A meta-task instead of the mean of all.

    Raises:
        ValueError: matplotlib is missing, the format is unknown, or no model has both a score and that latency.
    """
    check_format(file)
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    sizes = sorted({int(size) for model in report["models"] for size in model["ms_per_item"]})
    if not sizes:
        raise ValueError("There is nothing to plot: no latency was measured; evaluate with --latency-rounds from 1.")
    size = str(batch_size or min(sizes))
    points = [m for m in report["models"] if m["means"].get(of) is not None and size in m["ms_per_item"]]
    if not points:
        raise ValueError(
            f"There is nothing to plot: no model has a score for {of} and a latency at batch {size}. A meta-task alone "
            "is drawn by `python -m plume_embed.evaluation.tradeoff RESULTS.json FIGURE.svg --of I-RET`."
        )
    points.sort(key=lambda model: model["ms_per_item"][size])
    times = [model["ms_per_item"][size] for model in points]

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    latent = [m for m in points if m["paradigm"] in ("latent", "single") and m["num_latent_steps"] is not None]
    latent.sort(key=lambda model: model["num_latent_steps"])
    for weights in dict.fromkeys(model["weights"] for model in latent):
        line = [m for m in latent if m["weights"] == weights]
        means = [100 * m["means"][of][0] for m in line]
        axes.plot([m["ms_per_item"][size] for m in line], means, color=_COLOURS["latent"], lw=1)
    shown = set()
    for model, at in zip(points, times, strict=True):
        mean, low, high = (100 * value for value in model["means"][of])
        paradigm = model["paradigm"] if model["num_latent_steps"] is not None else None
        axes.errorbar(
            at,
            mean,
            yerr=[[mean - low], [high - mean]],
            fmt="o",
            capsize=3,
            color=_COLOURS[paradigm],
            label=_LABELS[paradigm] if paradigm not in shown else None,
        )
        shown.add(paradigm)
        name = _short(model, report["models"][0]["weights"])
        to_the_left = len(name) > 6 and at > (min(times) + max(times)) / 2  # a long name stays inside
        axes.annotate(
            name,
            (at, mean),
            xytext=(-7 if to_the_left else 7, -4),
            ha="right" if to_the_left else "left",
            textcoords="offset points",
            fontsize=9,
            bbox={"boxstyle": "round,pad=0.1", "color": "white", "alpha": 0.8},
        )
    if max(times) > _FAR * min(times):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.margins(x=0.12, y=0.15)
    axes.set_xlabel(f"ms per item, batch {size}")
    axes.set_ylabel("mean of the nine meta-tasks, %" if of == MEAN else f"{of}, %")
    axes.set_title("bars: 95 % intervals over queries", fontsize=9, loc="right")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save_figure(figure, file)
    return file


def save_figure(figure: Figure, file: Path) -> None:
    """Writes a figure, whole or not at all; its folder is made where there is none. An SVG has no date and no random
    names in it, so that the same version draws the same file."""
    import matplotlib

    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None, "Creator": f"matplotlib {matplotlib.__version__}"} if file.suffix == ".svg" else None
    with replacing(file) as partial, matplotlib.rc_context({"svg.hashsalt": "plume"}):
        figure.savefig(partial, dpi=150, metadata=metadata)


def _short(model: Mapping[str, Any], weights: str | None) -> str:
    """A point's name: its steps for the model whose weights these are, where the colour already tells the paradigm."""
    if model["num_latent_steps"] is None or model["weights"] != weights:
        return model["model"]
    steps = model["num_latent_steps"]
    return read_out_label(model["paradigm"], steps) or f"K={steps}"


def main(
    file: Annotated[Path, typer.Argument(help="What `plume-embed evaluate miniature --json FILE` wrote.")],
    out: Annotated[Path, typer.Argument(help="Picture to write: .svg, .png or .pdf.")],
    batch_size: Annotated[int | None, typer.Option(min=1, help="Which latency. Default: the smallest batch.")] = None,
    of: Annotated[str, typer.Option(help="A meta-task, e.g. I-RET, instead of the mean of all nine.")] = MEAN,
) -> None:
    """Draw accuracy against latency, e.g. `python -m plume_embed.evaluation.tradeoff results.json figure.svg`."""
    if of not in (MEAN, *META_TASKS):
        raise ValueError(f"--of is {MEAN} or one of {', '.join(META_TASKS)}, got {of!r}.")
    typer.echo(write_plot(read_results(file, BENCHMARK), out, batch_size, of))


if __name__ == "__main__":
    run_command(main)
