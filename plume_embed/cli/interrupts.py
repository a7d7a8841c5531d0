"""Ctrl-C: one line on stderr and exit code 130, at any moment.

While modules are imported, a KeyboardInterrupt may be lost in the import system or reach the user as a traceback of
somebody else's module. There is nothing to clean up then, so the process ends in the signal's handler. A command at
work gets a KeyboardInterrupt instead, which lets it close what it has opened. What was cut off stays silent: a
coroutine of a library that has not begun would otherwise warn when it is dropped.
"""

import os
import signal
import warnings

EXIT_CODE = 130
LINE = "plume-embed: stopped; run the same command again to go on where it was."
_CLEAR_LINE_AND_SHOW_CURSOR = "\r\x1b[2K\x1b[?25h"  # what a spinner leaves behind


def end_at_once() -> None:
    """From now on Ctrl-C ends the process, where it is not ignored (a shell's background job)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_interrupts() -> None:
    """From now on Ctrl-C silences warnings and raises KeyboardInterrupt, where `end_at_once` was in force."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, _raise)


def end_silently() -> None:
    """From now on Ctrl-C kills the process: one has been answered, and a second is for what takes long to close."""
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _raise):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(signal_number: int, frame: object) -> None:
    clear = _CLEAR_LINE_AND_SHOW_CURSOR if os.isatty(2) else ""
    os.write(2, f"{clear}{LINE}\n".encode())
    os._exit(EXIT_CODE)


def _raise(signal_number: int, frame: object) -> None:
    warnings.simplefilter("ignore")
    raise KeyboardInterrupt
