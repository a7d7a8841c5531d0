"""Starts the Space: `python space/app.py`, or `make space`. Offline, without telemetry.

PLUME_MODEL serves another model, PLUME_SPACE_DATA keeps the index elsewhere; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT
say where to listen.
"""

import asyncio
import atexit
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: the packages lie one folder up, and this folder's modules are not top-level ones
    sys.path[0] = str(ROOT)

if TYPE_CHECKING:
    import gradio as gr
    from filelock import FileLock

    from space.content.sessions import Sessions
    from space.service import Service
    from space.settings import Settings

TIDY_SECONDS = 60  # between two looks at what is overdue
_FOLDER = "plume-space-"


def prepare_environment() -> Path:
    """No telemetry, no network, and a fresh folder for uploads that only this process can read.

    It goes when the process ends; those of processes that were killed go now.

    Returns:
        `Path`: The upload folder.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not os.environ.get("PLUME_MODEL"):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    _remove_folders_of_the_dead()
    folder = _make_folder()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(folder / "cached")
    return folder


def end_on_sigterm() -> None:
    """Lets the process end on SIGTERM as on Ctrl-C. By itself the signal ends it without what is to be done at exit."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def _make_folder() -> Path:
    from filelock import FileLock

    # The lock is held as long as the process lives, and it is there before the folder is.
    descriptor, name = tempfile.mkstemp(prefix=_FOLDER, suffix=".lock")
    os.close(descriptor)
    lock = FileLock(name)
    lock.acquire()
    folder = _folder_of(Path(name))
    folder.mkdir(mode=0o700)
    atexit.register(_remove, folder, lock)
    return folder.resolve()


def _remove_folders_of_the_dead() -> None:
    from filelock import FileLock, Timeout

    for file in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*.lock"):
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):  # its process lives, or it is another user's
            continue
        _remove(_folder_of(file), lock)


def _folder_of(lock_file: Path) -> Path:
    return lock_file.with_suffix("")


def _remove(folder: Path, lock: "FileLock") -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


def launch(service: "Service", **overrides) -> "tuple[gr.Blocks, str]":
    """Serves the page behind the request filter.

    Args:
        service ([`Service`])
        overrides: For `gr.Blocks.launch`.

    Returns:
        The Blocks and its address.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    from space.middleware import PREVIEW_IMAGE, PageDescription, RequestFilter
    from space.page.page import description, head, make_page

    settings, folder = service.settings, service.sessions.upload_folder
    page, host = make_page(service), os.environ.get("SPACE_HOST")  # the Hub sets it
    page.queue(max_size=settings.queue, default_concurrency_limit=settings.at_a_time, api_open=False)
    system = ["system-ui", "sans-serif"]  # no font comes from elsewhere
    options = {
        "theme": gr.themes.Default(primary_hue="blue", font=system, font_mono=["ui-monospace", "monospace"]).set(
            # White on blue with the contrast that WCAG asks for.
            button_primary_background_fill="*primary_600",
            button_primary_background_fill_dark="*primary_600",
            button_primary_background_fill_hover="*primary_700",
            button_primary_background_fill_hover_dark="*primary_700",
        ),
        "head": head(service),
        "app_kwargs": {
            "lifespan": partial(_tidying, service.sessions),
            "middleware": [
                Middleware(
                    RequestFilter, limits=settings.limits, upload_folder=folder, holders=service.sessions.holders
                ),
                Middleware(
                    PageDescription, head=description(f"https://{host}{PREVIEW_IMAGE}" if host else PREVIEW_IMAGE)
                ),
            ],
        },
        "max_file_size": settings.limits.file_bytes,
        "footer_links": ["api"],
        "run_history": False,
        "ssr_mode": False,
        "share": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "show_error": False,
    }
    _, address, _ = page.launch(**(options | overrides))
    return page, address


@asynccontextmanager
async def _tidying(sessions: "Sessions", served: object) -> AsyncIterator[None]:
    """While the page is served, what is overdue is deleted, whether or not anybody comes."""

    async def tidy_again() -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            try:
                await asyncio.to_thread(sessions.tidy)
            except OSError:
                logging.exception("Files that are overdue could not be deleted; the next attempt follows.")

    task = asyncio.create_task(tidy_again())
    try:
        yield
    finally:
        task.cancel()


def make_service(upload_folder: Path, settings: "Settings | None" = None) -> "Service":
    """Loads the models and begins to prepare the collections."""
    import torch

    from plume_embed.reading.bounded import warm_up
    from space.content.corpora import load_corpora
    from space.service import Service
    from space.settings import Settings

    settings = settings or Settings.from_environment()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // settings.at_a_time))
    threading.Thread(target=warm_up, name="plume-warm-up", daemon=True).start()
    service = Service(settings, load_corpora(settings, os.environ.get("PLUME_MODEL")), upload_folder)
    for corpus in service.corpora:
        corpus.collection.start()
    return service


def main() -> None:
    from plume_embed.freed_memory import keep_freed_memory

    end_on_sigterm()
    keep_freed_memory()
    folder = prepare_environment()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        service = make_service(folder)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    launch(service)


if __name__ == "__main__":
    main()
