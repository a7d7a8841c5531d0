"""The command: it says where it is, finishes what is there on SIGTERM, and ends with code 0."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from plume_embed.cli.main import main
from plume_embed.serve.run import run
from plume_embed.serve.settings import Limits


def test_sigterm_finishes_a_request_that_is_there(released_model_dir: Path):
    command = [sys.executable, "-m", "plume_embed", "serve", "--model", str(released_model_dir), "--port", "0"]
    environment = {**os.environ, "PLUME_API_KEY": "secret"}
    server = subprocess.Popen([*command, "--name", "plume"], env=environment, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith("plume at http://127.0.0.1:")
    address, headers = line.split()[2], {"Authorization": "Bearer secret"}
    body = {"model": "plume", "input": [f"text number {number}" for number in range(300)]}
    assert httpx.post(f"{address}/embeddings", json=body).status_code == 401
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.post, f"{address}/embeddings", json=body, headers=headers, timeout=60)
        while "plume_waiting_items 0.0" in httpx.get(address.replace("/v1", "/metrics")).text:
            time.sleep(0.01)
        server.send_signal(signal.SIGTERM)
        assert len(answer.result().json()["data"]) == 300
    assert server.wait(60) == 0
    assert server.stdout.read() == ""


@pytest.mark.parametrize(("options", "pixels"), [([], 100_000_000), (["--max-image-mp", "300"], 300_000_000)])
def test_a_limit_of_pixels_goes_before_the_one_of_the_model(
    released_model_dir: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], pixels: int
):
    served = []
    monkeypatch.setattr("plume_embed.serve.app.create_app", lambda encoder, *settings: served.append(encoder))
    monkeypatch.setattr("plume_embed.serve.run.run", lambda *settings: None)
    with pytest.raises(SystemExit) as end:
        main(["serve", "--model", str(released_model_dir), *options])
    assert end.value.code == 0 and served[0].processor.max_image_pixels == pixels


def test_an_address_in_use_is_an_error_and_not_a_log_line():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        run(FastAPI(), "127.0.0.1", taken.getsockname()[1], 1, lambda address: None)


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="queue_items must be above 0"):
        Limits(queue_items=0)
