"""Runs one function in a process of its own, with limits on time, memory and writing. Linux and macOS.

Decoders are C code that meets whatever a stranger uploads: there, a crash, an endless loop or a request for all memory
ends that process and nothing else.
"""

import multiprocessing
import os
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Result = TypeVar("Result")

_CONTEXT = multiprocessing.get_context("forkserver")
# Imported once, in the server that children are forked off; else each child would import PyTorch anew.
_CONTEXT.set_forkserver_preload(["__main__", "plume_embed.index.files", "space.content.uploads"])


class LimitError(RuntimeError):
    """The function took too much time or memory, or its process died."""


def run_limited(function: Callable[..., Result], *args: Any, seconds: int, memory: int) -> Result:
    """What the function gives, computed in another process.

    Args:
        function (`Callable`): Importable by name; it, its arguments and its result are pickled. It cannot write files.
        seconds (`int`): Of processor time, and twice as many by the clock.
        memory (`int`): Bytes beyond what the process starts with.

    Raises:
        LimitError: a limit was hit, or the process died.
        ValueError: what the function raised, its message alone.
    """
    receiving, sending = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_child, args=(sending, function, args, seconds, memory), daemon=True)
    process.start()
    sending.close()
    try:
        if not receiving.poll(2 * seconds):
            raise LimitError(f"it takes longer than {seconds} seconds to read")
        succeeded, result = receiving.recv()
    except EOFError as error:
        raise LimitError("it takes too much time or memory to read, or it is damaged") from error
    finally:
        process.kill()
        process.join()
        receiving.close()
    if succeeded:
        return result
    raise ValueError(result)


def warm_up() -> None:
    """Starts the server that children are forked off, which takes the seconds that importing PyTorch takes."""
    run_limited(os.getpid, seconds=60, memory=2**30)


def _child(sending: Connection, function: Callable, args: tuple, seconds: int, memory: int) -> None:
    try:
        _set_limits(seconds, memory)
        answer = True, function(*args)
    except MemoryError:
        answer = False, "it takes too much memory to read"
    except Exception as error:  # decoders raise anything on damaged files
        answer = False, str(error) or type(error).__name__
    sending.send(answer)
    sending.close()
    os._exit(0)  # nothing of the parent's is to be cleaned up here


def _set_limits(seconds: int, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no byte into any file; pipes are not files
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = "/proc/self/statm"
    if os.path.exists(pages):
        with open(pages) as opened:
            used = int(opened.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
