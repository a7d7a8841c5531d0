"""Python's garbage collector waits until a command has its libraries and its model.

Importing torch and transformers makes some 400,000 objects that stay to the end. The collector would go through them
again and again while they are made, and once more at the exit: a third of the CPU time of a `search`. Only the
process of a command line does so (`__main__`); a program that calls `plume_embed.cli.main.main` keeps its own settings.
"""

import gc

_waits = False


def wait() -> None:
    """From now on nothing is collected."""
    global _waits
    _waits = True
    gc.disable()


def go_on() -> None:
    """Where `wait` was called: what there is now stays for good, and what comes after it is collected as always."""
    global _waits
    if _waits:
        _waits = False
        gc.freeze()
        gc.enable()
