"""What a server counts, in Prometheus' form."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server.

    Attributes:
        waiting: Items that wait or are worked on.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "plume_requests", "Requests by path and status.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "plume_request_seconds",
            "To the answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._items = Counter("plume_items", "Items embedded.", registry=self._registry)
        self._tokens = Counter("plume_tokens", "Their tokens, padding not counted.", registry=self._registry)
        self._padding = Counter(
            "plume_padding_tokens",
            "Padding of the batches. On a CPU the model computes only part of it.",
            registry=self._registry,
        )
        self._rows = Histogram("plume_batch_rows", "Items of a batch.", buckets=_ROWS, registry=self._registry)
        self._batch_seconds = Histogram(
            "plume_batch_seconds", "A batch in the model.", buckets=_SECONDS, registry=self._registry
        )
        self.waiting = Gauge("plume_waiting_items", "Items that wait or are worked on.", registry=self._registry)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request that was answered.

        Args:
            path (`str`): One of the server's own; a name of the caller's would be a new series each time.
            status (`int`): Of the answer.
            seconds (`float`): It took.
        """
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, num_tokens: Sequence[int], seconds: float) -> None:
        """Counts a batch that the model has computed, by the tokens of its rows."""
        self._items.inc(len(num_tokens))
        self._tokens.inc(sum(num_tokens))
        self._padding.inc(max(num_tokens) * len(num_tokens) - sum(num_tokens))
        self._rows.observe(len(num_tokens))
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it, as `/metrics` gives it."""
        return generate_latest(self._registry)
