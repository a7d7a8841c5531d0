"""`python -m training`: the experiments of this folder, what each is for, and the command that runs it."""

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Args:
        name (`str`): What `python -m training NAME` takes.
        paper (`str`): Where the paper has it.
        shows (`str`): What it is for.
        command (`str`): What runs it, from the root of the checkout.
        results (`tuple[str]`): Files that hold its results, relative to the root.
    """

    name: str
    paper: str
    shows: str
    command: str
    results: tuple[str, ...]


EXPERIMENTS = (
    Experiment(
        "hops",
        "section 3",
        "state tracking over eight steps: does the rollout compute?",
        "python -m plume_embed train training/hops/hops.yaml",
        ("training/hops/results/hops.json",),
    ),
    Experiment(
        "hops_mixed",
        "section 3",
        "four kinds of state tracking in one model",
        "python -m plume_embed train training/hops/hops_mixed.yaml",
        ("training/ablations/results/hops_mixed.json",),
    ),
    Experiment(
        "scene_hops",
        "section 3",
        "instructions followed over a composed picture, 0 to 6 hops",
        "make scene-hops",
        (
            "training/ablations/results/scene_hops.json",
            "training/ablations/results/scene_hops.runs.jsonl",
            "training/steps/results/scene_diagnostics.json",
            "training/scene_hops/checkpoint/training.json",
        ),
    ),
    Experiment(
        "steps",
        "beyond it",
        "what the latent steps carry: read-outs, causal tests, likeness of the steps",
        "python -m training.steps.diagnose --checkpoint checkpoints/plume-tiny",
        ("training/steps/results/diagnostics.json",),
    ),
    Experiment(
        "ablations_hops",
        "tables 3 to 6",
        "every row of the ablations on hops, paired seeds",
        "python -m training.ablations.grid --task hops --jobs 2 --json training/ablations/results/hops.json",
        ("training/ablations/results/hops.json", "training/ablations/results/hops.runs.jsonl"),
    ),
    Experiment(
        "ablations_hops_mixed",
        "tables 3 to 6",
        "every row of the ablations on hops_mixed, paired seeds",
        "python -m training.ablations.grid --task hops_mixed --jobs 2 "
        "--json training/ablations/results/hops_mixed.json",
        ("training/ablations/results/hops_mixed.json", "training/ablations/results/hops_mixed.runs.jsonl"),
    ),
    Experiment(
        "paradigms",
        "paradigms compared, figure 9",
        "plume-tiny by latent steps, explicit rationale, single pass, without curriculum",
        "make paradigms",
        ("training/plume_tiny/results/paradigms.json", "evaluation/results/paradigms.json"),
    ),
    Experiment(
        "report",
        "figures 5 and 6",
        "cosine of the latent states to the target, and use of the experts, of a finished run",
        "plume-embed report RUN_DIR",
        ("training/plume_tiny/results/report/report.json",),
    ),
    Experiment(
        "pairs_example",
        "none",
        "plume-tiny fine-tuned on pairs of one's own, sketches and pictures, three seeds",
        "python -m training.pairs_example.seeds",
        ("training/pairs_example/results/sketches.json",),
    ),
    Experiment(
        "plume_tiny",
        "section 3",
        "makes plume-tiny, which knows drawings",
        "make train-tiny",
        ("checkpoints/plume-tiny/training.json", "evaluation/results/miniature.json"),
    ),
    Experiment(
        "plume_small",
        "section 3",
        "makes the default plume-small from packages alone",
        "make train-small",
        (
            "checkpoints/plume-small/training.json",
            "evaluation/results/photographs.json",
            "training/plume_small/results/seeds.json",
        ),
    ),
    Experiment(
        "paper_2b",
        "section 3",
        "the paper's run over Qwen2-VL-2B; a dry run shows that it starts",
        "plume-embed train paper_2b --dry-run",
        (),
    ),
)


def main(
    name: Annotated[str | None, typer.Argument(help="One experiment. Default: all of them.", metavar="NAME")] = None,
) -> None:
    """List the experiments with the commands that run them."""
    chosen = [experiment for experiment in EXPERIMENTS if name in (None, experiment.name)]
    if not chosen:
        raise typer.BadParameter(f"no experiment {name}; there are {', '.join(e.name for e in EXPERIMENTS)}.")
    console = Console(markup=False, highlight=False, soft_wrap=True)
    for experiment in chosen:
        console.print(f"{experiment.name}: {experiment.shows} (paper: {experiment.paper})")
        console.print(f"    $ {experiment.command}")
        for path in experiment.results:
            console.print(f"    {path}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    app(prog_name="python -m training")
