"""`plume-embed evaluate pairs FILE`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plume_embed.atomic import write_json
from plume_embed.cli.console import make_console, progress_bar
from plume_embed.cli.evaluate.contestants import ModelOptions, load_contestants
from plume_embed.cli.extras import extra
from plume_embed.cli.loading import heavy_imports
from plume_embed.cli.options import (
    BATCH_SIZE,
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

if TYPE_CHECKING:
    from rich.table import Table


@extra("train")
def pairs(
    files: Annotated[
        list[Path],
        typer.Argument(help="Pairs: .jsonl, .csv, .tsv or .parquet, as for `train pairs`.", metavar="FILE..."),
    ],
    model: ModelsOption = None,
    peer: PeersOption = None,
    truncate: Annotated[
        str | None, typer.Option(help="Also score vectors cut to these dimensions, e.g. 32,64.", metavar="D,D")
    ] = None,
    media_root: Annotated[
        Path, typer.Option(help="Folder of the media, relative to the folder of FILE.", metavar="DIR")
    ] = Path(),
    max_bad_lines: Annotated[int, typer.Option(min=0, help="Most bad rows that are skipped before it stops.")] = 0,
    resamples: ResamplesOption = 2000,
    json_to: JsonOption = None,
    batch_size: BatchOption = BATCH_SIZE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    trust_remote_code: TrustCodeOption = False,
) -> None:
    """Pairs of your own: is the positive found among all positives and negatives of the file?

    An item that equals the query does not compete with its positive. Several models share a table. `train pairs` keeps
    what it held out in OUTPUT_DIR/held_out.jsonl.
    """
    sizes = _sizes(truncate)
    check_output(json_to, "--json", files)
    with heavy_imports("Loading the model"):
        from plume_embed.quiet import quiet_libraries
        from plume_embed.training.data.pair_rows import read_pairs
        from plume_embed.training.data.pair_scores import PairPool
        from plume_embed.training.data.pairs_report import as_dict, check_truncation, embed_with, table

        quiet_libraries()
        console = make_console()
        pool = PairPool.of(read_pairs(files, media_root, max_bad_lines, console.print))
        options = ModelOptions(device, dtype, trust_remote_code=trust_remote_code)
        embedders, conditions = load_contestants(model or [None], peer or [], [("latent", None)], options)
        for embedder in embedders if sizes else ():
            check_truncation(embedder, pool, sizes)
    models: list[dict[str, Any]] = []
    total = len(embedders) * (len(pool.queries) + len(pool.pool))
    with progress_bar("embedding", "items") as on_progress:
        done = 0

        def count(number: int) -> None:
            nonlocal done
            done += number
            on_progress(done, total)

        for embedder in embedders:
            models += as_dict(embedder, pool, lambda one: embed_with(one, batch_size, count), sizes, resamples)
    shown: Table = table(models, len(pool.queries), len(pool.pool))
    console.print(shown, soft_wrap=False)
    if json_to is not None:
        counts = {"queries": len(pool.queries), "pool": len(pool.pool)}
        write_json(json_to, {"benchmark": "pairs", **counts, "conditions": conditions, "models": models})
        console.print(f"written: {json_to}")


def _sizes(truncate: str | None) -> list[int]:
    try:
        sizes = [int(word) for word in (truncate or "").split(",") if word.strip()]
    except ValueError as error:
        raise ValueError(f"--truncate takes whole numbers with commas between, got {truncate!r}.") from error
    if any(size < 1 for size in sizes):
        raise ValueError(f"--truncate takes numbers of dimensions from 1, got {truncate!r}.")
    return sizes
