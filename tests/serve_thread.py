"""A server in a thread, for clients that speak over a socket."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from plume_embed.encode.encoder import Encoder
from plume_embed.serve.app import create_app
from plume_embed.serve.settings import DEFAULT_LIMITS, Limits


@contextmanager
def running(encoder: Encoder, limits: Limits = DEFAULT_LIMITS, **options) -> Iterator[str]:
    """The address of a server that runs while this is open."""
    config = uvicorn.Config(create_app(encoder, limits, **options), port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
