"""How a command ends: what its caller can mend is one line on stderr, not a traceback; and such a line itself."""

import sys
from collections.abc import Callable

import typer


def one_line(text: str) -> str:
    """Text of any origin in one line, with whatever could move the cursor or change the terminal written out."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def error_line(message: str) -> str:
    """A message in one line, its white space collapsed: libraries write paragraphs."""
    return one_line(" ".join(message.split()))


def run_command(main: Callable[..., None]) -> None:
    """Runs a function with the options of the command line; for a ValueError one line on stderr and exit code 2."""
    try:
        typer.run(main)
    except ValueError as error:
        print(error_line(str(error)), file=sys.stderr)
        sys.exit(2)
