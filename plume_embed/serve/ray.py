"""The server's application in several replicas, by Ray Serve: `serve run plume_embed.serve.ray:app`.

Each replica loads the model and batches what Ray's router sends to it. Model and limits come from environment
variables, since `serve run` knows no options of the application; docs/serve.md lists them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve

from plume_embed.encode.batching import BATCH_SIZE, TOKEN_BUDGET
from plume_embed.encode.encoder import Encoder
from plume_embed.quiet import quiet_libraries
from plume_embed.serve.app import create_app
from plume_embed.serve.settings import API_KEY_VARIABLE, DEFAULT_LIMITS, MEGABYTE, Limits

_PREFIX = "PLUME_SERVE_"
_TYPES = {
    "REPLICAS": int,
    "CPUS": float,
    "GPUS": float,
    "NAME": str,
    "ALLOW_HOSTS": str,
    "DEVICE": str,
    "DTYPE": str,
    "BATCH_SIZE": int,
    "TOKEN_BUDGET": int,
    "MAX_QUEUE": int,
    "MAX_ITEMS": int,
    "MAX_BODY_MB": int,
    "TIMEOUT": int,
}


@dataclass(frozen=True)
class ReplicaOptions:
    """What every replica is made of; the environment of `serve run` decides it, wherever a replica runs.

    Args:
        model (`str`, *optional*): `PLUME_MODEL`; by default the bundled plume-small.
        key (`str`, *optional*): `PLUME_API_KEY`, which clients must send.
        replicas (`int`): How many.
        cpus, gpus (`float`): What Ray reserves for each.
        name (`str`, *optional*): By which clients call the model.
        hosts: From which addresses of pictures and films are fetched.
        device, dtype: As of [`Encoder`].
        limits ([`Limits`]): Of each replica.
    """

    model: str | None = None
    key: str | None = None
    replicas: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    name: str | None = None
    hosts: frozenset[str] = frozenset()
    device: str | None = None
    dtype: str = "auto"
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "ReplicaOptions":
        """The options that an environment asks for.

        Raises:
            ValueError: a variable that is not known, or a value of another type.
        """
        given = _read(environment)
        limits = Limits(
            body_bytes=given.get("MAX_BODY_MB", Limits.body_bytes // MEGABYTE) * MEGABYTE,
            items=given.get("MAX_ITEMS", Limits.items),
            queue_items=given.get("MAX_QUEUE", Limits.queue_items),
            request_seconds=given.get("TIMEOUT", Limits.request_seconds),
            batch_size=given.get("BATCH_SIZE", BATCH_SIZE),
            token_budget=given.get("TOKEN_BUDGET", TOKEN_BUDGET),
        )
        return cls(
            model=_absolute(environment.get("PLUME_MODEL")),
            key=environment.get(API_KEY_VARIABLE) or None,
            replicas=given.get("REPLICAS", cls.replicas),
            cpus=given.get("CPUS", cls.cpus),
            gpus=given.get("GPUS", cls.gpus),
            name=given.get("NAME"),
            hosts=frozenset(given.get("ALLOW_HOSTS", "").split()),
            device=given.get("DEVICE"),
            dtype=given.get("DTYPE", cls.dtype),
            limits=limits,
        )

    def application(self) -> FastAPI:
        """Loads the model; the same application as `plume-embed serve` runs."""
        quiet_libraries()
        return create_app(Encoder(self.model, self.device, self.dtype), self.limits, self.name, self.hosts, self.key)


def deploy(options: ReplicaOptions) -> serve.Application:
    """The replicas, for `serve.run`."""

    def application() -> FastAPI:
        return options.application()

    # Ray calls the function in each replica when that starts: the model is loaded there, and not in this process.
    @serve.ingress(application)
    class PlumeServer:
        """One replica."""

    deployment: Any = serve.deployment(
        PlumeServer,
        name="plume-embed",
        num_replicas=options.replicas,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        # The replica's own queue refuses with 429; Ray must not hold requests back before it can batch them.
        max_ongoing_requests=options.limits.queue_items,
        graceful_shutdown_timeout_s=options.limits.stop_seconds,
    )
    return deployment.bind()


def _absolute(model: str | None) -> str | None:
    """A folder by its whole path, since replicas have another working directory."""
    return str(Path(model).resolve()) if model and Path(model).is_dir() else model or None


def _read(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or not text:
            continue
        name = variable.removeprefix(_PREFIX)
        if name not in _TYPES:
            known = ", ".join(_PREFIX + one for one in _TYPES)
            raise ValueError(f"{variable} is no option; there are {known}.")
        try:
            found[name] = _TYPES[name](text)
        except ValueError as error:
            raise ValueError(f"{variable} must be {_TYPES[name].__name__}, got {text!r}.") from error
    return found


def __getattr__(attribute: str) -> serve.Application:
    """`app`, made when `serve run` asks for it, so that an import reads no environment."""
    if attribute == "app":
        return deploy(ReplicaOptions.of(os.environ))
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
