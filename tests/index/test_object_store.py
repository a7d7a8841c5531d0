"""An index at an s3:// address, on a local server that speaks S3; skipped where `moto_server` is not installed.

pip install "moto[server]"
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

SERVER = shutil.which("moto_server")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SERVER is None, reason='needs moto_server: pip install "moto[server]"'),
]


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    """The environment that leads LanceDB to a server with a bucket named plume."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([str(SERVER), "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                httpx.put(f"{address}/plume")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield {
            "AWS_ENDPOINT": address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.terminate()
        server.wait()


def plume(store: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "plume_embed", *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **store}, capture_output=True, text=True, check=False)


def test_an_index_in_a_bucket_is_made_searched_and_updated(
    store: dict[str, str], tmp_path: Path, released_model_dir: Path
):
    (tmp_path / "rose.txt").write_text("Roses grow in gardens.")
    (tmp_path / "whale.txt").write_text("The blue whale is the largest animal.")
    address = ("--to", "s3://plume/texts.index", "--model", released_model_dir)
    missing = plume(store, "search", tmp_path, "a rose", *address, "--no-update")
    assert missing.returncode == 2 and "There is no index in s3://plume/texts.index" in missing.stderr
    made = plume(store, "index", tmp_path, *address, "--ann")
    assert made.returncode == 0, made.stderr
    assert "2 items" in made.stdout and "no ANN index: below 100,000 items" in made.stdout
    (tmp_path / "fox.txt").write_text("A fox sleeps.")
    found = plume(store, "search", tmp_path, "A fox sleeps.", *address, "--paths")
    assert found.returncode == 0 and len(found.stdout.split()) == 3, found.stderr
    assert found.stdout.splitlines()[0].endswith("fox.txt")
    other = plume(store, "search", tmp_path.parent, "a rose", *address)
    assert other.returncode == 2 and "s3://plume/texts.index is the index of another folder" in other.stderr


def test_a_bucket_that_is_not_there_is_an_error_in_one_line(
    store: dict[str, str], tmp_path: Path, released_model_dir: Path
):
    (tmp_path / "rose.txt").write_text("Roses grow in gardens.")
    failed = plume(store, "index", tmp_path, "--to", "s3://nowhere/texts.index", "--model", released_model_dir)
    assert failed.returncode == 2 and len(failed.stderr.splitlines()) == 1
    assert "s3://nowhere/texts.index cannot be reached: The specified bucket does not exist" in failed.stderr
