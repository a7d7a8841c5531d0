"""Pools of processes whose workers do not outlive the process that started them."""

import multiprocessing
import os
import threading
from multiprocessing import connection


def end_with_parent() -> None:
    """Initializer of a pool's workers: each ends when the process that started it has ended, also by a signal.

    Without it a killed parent leaves workers that compute what is queued for them and then wait for ever.

    Raises:
        RuntimeError: this process is no worker.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("end_with_parent is for the workers of a pool: pass it as their initializer.")
    threading.Thread(target=_wait, args=(parent.sentinel,), daemon=True).start()


def _wait(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
