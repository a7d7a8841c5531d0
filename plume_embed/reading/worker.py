"""The process that `bounded.py` starts: it calls functions, each call in a fork of its own, with limits.

It is started as a file and not as a module, so that nothing of the user's program is imported. The wire: pickles, one
after the other; a list of import paths, then calls; for each call its items, and how it ended. Behind an answer come
the bytes of its arrays as they are: an array of 36 MB is not copied into a pickle and out of it.
"""

import os
import pickle
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

ITEM, END, ERROR = "item", "end", "error"
OUT_OF_MEMORY = 77  # exit status; at that moment nothing can be said any more


def main() -> None:
    """Answers calls until the other side is gone."""
    # What a decoder prints must not stand between the answers.
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    sys.path[:] = pickle.load(calls)
    _send(answers, END)
    while True:
        try:
            call = pickle.load(calls)
        except EOFError:
            return
        except Exception as error:  # a function that cannot be imported here
            _send(answers, ERROR, f"{type(error).__name__}: {error}")
            continue
        if hasattr(os, "fork"):
            _in_a_fork(answers, *call)
        else:  # Windows: no limits but the clock's, which the other side keeps
            _answer(answers, *call, is_limited=False)


def _in_a_fork(answers: BinaryIO, *call: Any) -> None:
    child = os.fork()
    if child == 0:
        try:
            _answer(answers, *call, is_limited=True)
            os._exit(0)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if status != 0:  # half an answer may be on the wire: this process is of no use any more
        os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def _answer(answers: BinaryIO, function: Any, args: tuple, seconds: int, memory: int, is_limited: bool) -> None:
    try:
        if is_limited:
            _limit_memory(memory)
        items: Iterator[Any] = function(*args)
        while True:
            if is_limited:
                _limit_time(seconds)
            try:
                item = next(items)
            except StopIteration:
                break
            _send(answers, ITEM, item)
            del item
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on damaged files
        _send(answers, ERROR, str(error) or type(error).__name__)
    else:
        _send(answers, END)


def _send(answers: BinaryIO, kind: str, value: Any = None) -> None:
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps((kind, value), protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    pickle.dump((pickled, [array.nbytes for array in arrays]), answers, protocol=5)
    for array in arrays:
        answers.write(array)
    answers.flush()


def _limit_memory(memory: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no byte into any file; pipes are not files
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = "/proc/self/statm"
    if os.path.exists(pages):
        with open(pages) as opened:
            used = int(opened.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))


def _limit_time(seconds: int) -> None:
    """Gives the next item its seconds, whatever those before took."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
