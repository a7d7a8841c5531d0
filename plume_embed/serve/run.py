"""Starts a server and stops it gracefully."""

import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI


def run(app: FastAPI, host: str, port: int, stop_seconds: int, on_started: Callable[[str], None]) -> None:
    """Serves until SIGTERM or Ctrl-C: then takes no new connection, finishes what is there and returns.

    Args:
        app: From `create_app`.
        host (`str`): Address to listen at.
        port (`int`): 0 takes a free one.
        stop_seconds (`int`): How long a stop waits for requests that are there. A second signal ends at once.
        on_started: Called with the address when the server takes requests.

    Raises:
        OSError: it cannot listen there.
    """
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=stop_seconds
    )
    # Listening before the server starts: an address in use is an error here, and whoever connects early waits.
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    # uvicorn raises the signal once more when it is done; by default that would end the process with the signal's code.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.signal(signal.SIGINT, lambda number, frame: None)
    name, actual = listening.getsockname()[:2]
    on_started(f"http://{f'[{name}]' if ':' in name else name}:{actual}")
    uvicorn.Server(config).run(sockets=[listening])
