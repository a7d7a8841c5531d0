"""`plume-embed evaluate photos`."""

from pathlib import Path
from typing import Annotated

import typer

from plume_embed.atomic import write_json
from plume_embed.cli.console import make_console, progress_bar
from plume_embed.cli.evaluate.contestants import ModelOptions, load_contestants
from plume_embed.cli.extras import extra
from plume_embed.cli.loading import heavy_imports
from plume_embed.cli.options import (
    BatchOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelsOption,
    PeersOption,
    ResamplesOption,
    TrustCodeOption,
)
from plume_embed.outputs import check_output


@extra("eval")
def photos(
    data: Annotated[
        Path, typer.Option(help="Folder that `make photos` wrote, from the checkout's root.", metavar="DIR")
    ] = Path(".data/photos"),
    model: ModelsOption = None,
    peer: PeersOption = None,
    resamples: ResamplesOption = 2000,
    json_to: JsonOption = None,
    batch_size: BatchOption = 32,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    trust_remote_code: TrustCodeOption = False,
) -> None:
    """Real photographs found by captions and sentences, and the other way round, beside stored peers and chance."""
    check_output(json_to, "--json")
    with heavy_imports():
        from plume_embed.evaluation.photos import report as photos_report
        from plume_embed.evaluation.photos.benchmark import digest, read_tasks
        from plume_embed.evaluation.photos.run import evaluate, stored_peers
        from plume_embed.quiet import quiet_libraries

        quiet_libraries()
    tasks = read_tasks(data)
    options = ModelOptions(device, dtype, trust_remote_code=trust_remote_code)
    embedders, conditions = load_contestants(model or [None], peer or [], [("latent", None)], options)
    with progress_bar("embedding", "items") as on_progress:
        contestants = evaluate(tasks, embedders, batch_size, on_progress)
    conditions |= {"batch_size": batch_size, "benchmark": digest(data)}
    report = photos_report.as_dict(tasks, contestants + stored_peers(tasks, data), conditions, resamples)
    console = make_console()
    for table in photos_report.tables(report):
        console.print(table, soft_wrap=False)
    if json_to is not None:
        write_json(json_to, report)
        console.print(f"written: {json_to}")
