"""`plume-embed train RECIPE`."""

import os
from typing import Annotated

import typer

from plume_embed.cli.extras import extra
from plume_embed.cli.loading import heavy_imports
from plume_embed.training.recipes import recipe_names


@extra("train")
def train(
    recipe: Annotated[
        str,
        typer.Argument(help=f"Name of a recipe ({', '.join(recipe_names())}), or a YAML file.", metavar="RECIPE"),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting of the recipe; repeatable, e.g. curriculum.stages=[0,4].",
            metavar="KEY=VALUE",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check that it starts: random 2-layer backbone, made-up data, output in OUTPUT_DIR-dry-run, where it "
            "replaces that of an earlier dry run.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue from the last checkpoint in output_dir; a finished run is left as it is."
        ),
    ] = False,
) -> None:
    """Train a model by a recipe; the folder output_dir gets log.jsonl, checkpoints, model/ and results.json.

    On several GPUs: accelerate launch -m plume_embed train RECIPE ...; on CPUs: torchrun --nproc-per-node 2 -m ...
    """
    with heavy_imports():
        import torch.distributed as dist
        from rich.console import Console

        from plume_embed.quiet import quiet_libraries
        from plume_embed.training.dry_run import dry_recipe
        from plume_embed.training.recipe import load_recipe
        from plume_embed.training.run import run

        quiet_libraries()
    chosen = load_recipe(recipe, settings or [])
    if dry_run:
        chosen = dry_recipe(chosen)
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.quiet = os.environ.get("RANK", "0") != "0"  # of torchrun and accelerate launch
    run(chosen, resume, console, replace=dry_run and not resume)
    if dist.is_initialized():  # together, before one process closes what another still listens to
        dist.destroy_process_group()
