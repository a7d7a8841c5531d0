"""`plume-embed evaluate`, assembled."""

import typer

from plume_embed.cli.evaluate.miniature import miniature
from plume_embed.cli.evaluate.mmeb_v2 import mmeb_v2
from plume_embed.cli.evaluate.pairs import pairs
from plume_embed.cli.evaluate.photos import photos

app = typer.Typer(
    name="evaluate",
    help="Score a model: MMEB-v2 (78 tasks), the miniature that can be built offline, photographs, your own pairs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command(
    "mmeb-v2",
    epilog="Example: plume-embed evaluate mmeb-v2 --media-dir data --modality image --out results. "
    "Several processes: accelerate launch -m plume_embed evaluate mmeb-v2 ...",
)(mmeb_v2)
app.command(epilog="Example: plume-embed evaluate miniature --steps 0,2,4,6,8,cot --plot tradeoff.svg")(miniature)
app.command(epilog="Example: plume-embed evaluate photos --model checkpoints/plume-small@0,8 --json photos.json")(
    photos
)
app.command(epilog="Example: plume-embed evaluate pairs my.csv --model checkpoints/plume-tiny --model runs/mine/model")(
    pairs
)
