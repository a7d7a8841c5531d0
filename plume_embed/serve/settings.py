"""What a server allows, and the names that it and its client share. Nothing here needs the extra `serve`."""

import os
from dataclasses import dataclass

from plume_embed.encode.batching import BATCH_SIZE, THREADS_AHEAD, TOKEN_BUDGET

API_KEY_VARIABLE = "PLUME_API_KEY"
FINGERPRINT_HEADER = "Plume-Fingerprint"  # of an answer with vectors: of the model that they come from
MEGABYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """What a server accepts. What is beyond them is refused with a status and the limit's name.

    Args:
        body_bytes (`int`): Of a request, and of all files together that are fetched for it.
        items (`int`): Of a request.
        film_seconds (`float`): Of a film.
        queue_items (`int`): Items that may wait or be worked on, of all clients together.
        queue_bytes (`int`): Their texts and files.
        request_seconds (`float`): From a request's body to its answer, fetching included.
        fetch_seconds (`float`): For fetching an address, from the connection to the last byte.
        batch_size (`int`): Most items in a pass of the model.
        token_budget (`float`): Most tokens in a pass, padding included.
        threads (`int`): Threads that decode pictures and films. Texts have one of their own.
        stop_seconds (`int`): How long a stop waits for the requests that are there.
    """

    body_bytes: int = 64 * MEGABYTE
    items: int = 512
    film_seconds: float = 600.0
    queue_items: int = 2048
    queue_bytes: int = 1024 * MEGABYTE
    request_seconds: float = 60.0
    fetch_seconds: float = 10.0
    batch_size: int = BATCH_SIZE
    token_budget: float = TOKEN_BUDGET
    threads: int = THREADS_AHEAD
    stop_seconds: int = 30

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"The limit {name} must be above 0, got {value}.")


DEFAULT_LIMITS = Limits()


def api_key() -> str | None:
    """The key that a server asks for and a client sends: `PLUME_API_KEY`, or none."""
    return os.environ.get(API_KEY_VARIABLE) or None
