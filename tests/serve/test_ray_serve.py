"""Ray Serve runs the same application in replicas: the same vectors, and every replica takes its part."""

import os
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from plume_embed.encode.encoder import Encoder
from plume_embed.serve.ray import ReplicaOptions

NUM_TEXTS = 48
HEADERS = {"Authorization": "Bearer secret"}


def test_options_come_from_the_environment(released_model_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(released_model_dir.parent)
    environment = {
        "PLUME_MODEL": released_model_dir.name,
        "PLUME_API_KEY": "secret",
        "PLUME_SERVE_REPLICAS": "2",
        "PLUME_SERVE_GPUS": "0.5",
        "PLUME_SERVE_ALLOW_HOSTS": "a.example.org b.example.org:81",
        "PLUME_SERVE_MAX_QUEUE": "7",
        "PLUME_SERVE_TIMEOUT": "",
        "HOME": "/root",
    }
    options = ReplicaOptions.of(environment)
    assert options.model == str(released_model_dir)  # replicas have another working directory
    assert (options.key, options.replicas, options.gpus, options.cpus) == ("secret", 2, 0.5, 1.0)
    assert options.hosts == {"a.example.org", "b.example.org:81"}
    assert (options.limits.queue_items, options.limits.request_seconds) == (7, 60)
    assert ReplicaOptions.of({"PLUME_MODEL": "owner/name"}).model == "owner/name"


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("PLUME_SERVE_REPLICA", "2", "PLUME_SERVE_REPLICA is no option; there are PLUME_SERVE_REPLICAS"),
        ("PLUME_SERVE_REPLICAS", "two", "PLUME_SERVE_REPLICAS must be int, got 'two'"),
        ("PLUME_SERVE_MAX_QUEUE", "0", "queue_items must be above 0"),
    ],
)
def test_a_wrong_variable_is_refused(variable: str, value: str, reason: str):
    with pytest.raises(ValueError, match=reason):
        ReplicaOptions.of({variable: value})


@pytest.fixture(scope="module")
def address(released_model_dir: Path) -> Iterator[str]:
    """A cluster of this machine with two replicas."""
    ray = pytest.importorskip("ray")
    from ray import serve

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PLUME_SERVE_")]:
            patch.delenv(name)
        patch.setenv("PLUME_MODEL", str(released_model_dir))
        patch.setenv("PLUME_API_KEY", "secret")
        patch.setenv("PLUME_SERVE_REPLICAS", "2")
        patch.setenv("PLUME_SERVE_NAME", "plume")
        import plume_embed.serve.ray as module

        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(module.app)  # as `serve run plume_embed.serve.ray:app`
            yield f"http://127.0.0.1:{port}"
        finally:
            serve.shutdown()
            ray.shutdown()


@pytest.mark.slow
def test_two_replicas_share_the_requests_and_give_the_vectors_of_encode(address: str, released_model_dir: Path):
    texts = [f"text number {number} " * (1 + number % 5) for number in range(NUM_TEXTS)]

    def ask(text: str) -> list[float]:
        answer = httpx.post(f"{address}/v1/embeddings", json={"input": text}, headers=HEADERS, timeout=60)
        answer.raise_for_status()
        return answer.json()["data"][0]["embedding"]

    with ThreadPoolExecutor(16) as pool:
        found = np.array(list(pool.map(ask, texts)))
    np.testing.assert_allclose(found, Encoder(released_model_dir, device="cpu").encode(texts), atol=1e-5)
    counted = {
        metrics for _ in range(60) for metrics in re.findall(r"^plume_items_total (\S+)", _metrics(address), re.M)
    }
    assert len(counted) == 2 or counted == {str(NUM_TEXTS / 2)}
    assert sum(map(float, counted)) * 2 / len(counted) == NUM_TEXTS


@pytest.mark.slow
def test_replicas_refuse_what_one_server_refuses(address: str):
    url = f"{address}/v1/embeddings"
    assert httpx.post(url, json={"input": "a"}).status_code == 401
    assert httpx.post(url, json={"input": "a", "model": "another"}, headers=HEADERS).status_code == 404
    assert httpx.post(url, json={"input": [1, 2]}, headers=HEADERS).json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{address}/v1/models", headers=HEADERS).json()["data"][0]["id"] == "plume"


def _metrics(address: str) -> str:
    return httpx.get(f"{address}/metrics").text
