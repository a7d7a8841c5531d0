"""The command line, assembled: one file a command. Heavy imports stand inside the commands.

An expected error is one line on stderr and exit code 2; so is a package of an extra that is not installed.
"""

import sys
from typing import Annotated, Any

import typer
from typer.models import CommandInfo

from plume_embed import __version__
from plume_embed.cli import interrupts
from plume_embed.cli.bench import app as bench
from plume_embed.cli.convert import convert
from plume_embed.cli.embed import embed
from plume_embed.cli.evaluate.app import app as evaluate
from plume_embed.cli.export import export
from plume_embed.cli.extras import MissingExtraError
from plume_embed.cli.index import index
from plume_embed.cli.init import init
from plume_embed.cli.mine import mine
from plume_embed.cli.rationalize import rationalize
from plume_embed.cli.report import report
from plume_embed.cli.search import search
from plume_embed.cli.serve import serve
from plume_embed.cli.train import train
from plume_embed.command import error_line

app = typer.Typer(
    name="plume-embed",
    help="PLUME: one embedding space for texts, pictures, videos and PDF pages. Index a folder and search it.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command(epilog='Example: plume-embed search ~/Pictures "a red bicycle" --top 3')(search)
app.command(epilog="Example: plume-embed index ~/Pictures --to ~/pictures.index")(index)
app.command(epilog="Example: plume-embed embed products.jsonl --to products.parquet")(embed)
app.command(epilog="Example: plume-embed serve --model checkpoints/plume-tiny --port 8000")(serve)
app.command(epilog="Example: plume-embed convert PLUME-Qwen2-VL-2B plume-2b")(convert)
app.command(epilog="Example: plume-embed init Qwen/Qwen2-VL-2B-Instruct plume-fresh --set num_latent_steps=4")(init)
app.command(epilog="Example: plume-embed export plume-for-the-hub --model checkpoints/plume-tiny")(export)
app.command(epilog="Example: plume-embed train paper_2b --dry-run --set output_dir=runs/dry")(train)
app.command(epilog="Example: plume-embed mine my.csv --corpus ~/Pictures --out mined.jsonl")(mine)
app.command(
    epilog="Example: plume-embed rationalize my.csv --endpoint http://localhost:8000/v1 --model NAME --out corpus.jsonl"
)(rationalize)
app.command(epilog="Example: plume-embed report runs/hops-1 --explicit runs/hops-explicit")(report)
app.add_typer(evaluate, name="evaluate")
app.add_typer(bench, name="bench")


@app.callback(invoke_without_command=True)
def _main_options(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and exits: 0, 1 where a part failed, 2 with one line for an expected error, 130 on Ctrl-C.

    Args:
        arguments (`list[str]`, *optional*): Defaults to those of the process.
    """
    usage_error: Any = typer.BadParameter.__base__  # the public name of its parent has moved between versions
    try:
        code = app(arguments, standalone_mode=False)
    except usage_error as error:
        message = error_line(error.format_message())
        message += "" if message.endswith((".", "?")) else "."
        _fail(f"{message} See plume-embed {_subcommand(arguments)}--help.")
    except (MissingExtraError, ValueError, OSError) as error:
        _fail(error_line(str(error) or type(error).__name__))
    except (KeyboardInterrupt, typer.Abort):
        code = interrupts.EXIT_CODE
    if code == interrupts.EXIT_CODE:
        interrupts.end_silently()
        print(interrupts.LINE, file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def command_names() -> list[list[str]]:
    """Every command as the words that call it, groups too: `["search"]`, `["bench"]`, `["bench", "encode"]`."""
    found = [[_name(command)] for command in app.registered_commands]
    for group in app.registered_groups:
        assert group.typer_instance is not None and group.name is not None
        found += [[group.name], *([group.name, _name(inner)] for inner in group.typer_instance.registered_commands)]
    return found


def _name(command: CommandInfo) -> str:
    assert command.callback is not None
    return command.name or command.callback.__name__


def _fail(message: str) -> None:
    print(f"plume-embed: {message}", file=sys.stderr)
    sys.exit(2)


def _subcommand(arguments: list[str] | None) -> str:
    first = (sys.argv[1:] if arguments is None else arguments)[:1]
    return f"{first[0]} " if first in command_names() else ""
