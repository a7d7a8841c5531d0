"""How the command of an experiment starts: what its caller can mend ends in one line, not in a traceback."""

import sys
from collections.abc import Callable

import typer

from plume_embed.cli.console import error_line


def run_command(main: Callable[..., None]) -> None:
    """Runs a function with the options of the command line; for a ValueError one line on stderr and exit code 2."""
    try:
        typer.run(main)
    except ValueError as error:
        print(error_line(str(error)), file=sys.stderr)
        sys.exit(2)
