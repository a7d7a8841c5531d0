"""The plots of the documents, each drawn from committed results. `python -m docs.tables` writes those that differ."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from docs.committed import read

_ABLATIONS = "training/ablations/results"
_STEPS = "training/steps/results"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def variants(file: Path) -> None:
    from training.steps.variants import with_compared, write_plot

    write_plot(with_compared(read(f"{_STEPS}/hops_variants.json"), read(f"{_ABLATIONS}/hops.json")), file)


def scene_variants(file: Path) -> None:
    from training.steps.variants import with_compared, write_plot

    held, others = read(f"{_ABLATIONS}/scene_hops_held.json"), read(f"{_ABLATIONS}/scene_hops.json")
    write_plot(with_compared(held, others), file)


def curve(file: Path) -> None:
    from training.steps.curve import write_plot

    ablations = [read(f"{_STEPS}/hops_variants.json"), read(f"{_ABLATIONS}/hops.json")]
    write_plot(read(f"{_STEPS}/diagnostics.json"), ablations, file)


def scene_hops(file: Path) -> None:
    from training.scene_hops.tables import write_plot

    write_plot(read(f"{_ABLATIONS}/scene_hops.json"), file)


def miniature(file: Path) -> None:
    from plume_embed.evaluation.tradeoff import write_plot

    write_plot(read("evaluation/results/miniature.json"), file)


PLOTS: dict[str, Callable[[Path], None]] = {
    **{f"{_STEPS}/{plot.__name__}.svg": plot for plot in (variants, scene_variants, curve, scene_hops)},
    "evaluation/results/miniature.svg": miniature,
}


def drawn(name: str) -> str:
    """A plot of `PLOTS` as the results say now."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(name).name
        PLOTS[name](file)
        return file.read_text()


def version_of(plot: str) -> str:
    """The version of matplotlib that drew a plot: another one may place and write things differently."""
    found = re.search(r"matplotlib \d[\w.]*", plot)
    return found[0] if found else ""


def is_same(plot: str, other: str) -> bool:
    """Whether two plots of one version show the same; numbers may differ by what machines round."""
    numbers, others = (list(map(float, _NUMBER.findall(text))) for text in (plot, other))
    if _NUMBER.sub("#", plot) != _NUMBER.sub("#", other):
        return False
    return all(abs(number - another) < 0.01 for number, another in zip(numbers, others, strict=True))
