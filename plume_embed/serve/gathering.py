"""Whether the next batch waits for the clients that were answered just now.

A client that needs its answer before it asks again cannot be in the next batch, unless that one waits for it: without
a wait 32 such clients fall into two groups that take turns, in batches half as full. The wait is short beside a batch,
and there is none where clients do not come back at once; that is learned from those that were answered before.
"""

# Of the time that the last batch took, and at most so many seconds.
_SHARE_OF_A_BATCH, _MOST_SECONDS = 0.2, 0.25
# Fewer than half: items come at any time, a wait would only be lost.
_LEAST_SHARE_BACK = 0.5
_LEARNING_RATE = 0.25


class Gathering:
    """Counts the items that come soon after a batch was answered. Not safe to use from several threads at once.

    Attributes:
        seconds (`float`): How long after a batch its clients count as coming back, and how long the next one waits.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ended, self._num_answered, self._num_back, self._share_back = 0.0, 0, 0, 1.0

    def came(self, num_items: int, now: float) -> None:
        """Items were sent to the server."""
        if now <= self._ended + self.seconds:
            self._num_back += num_items

    def answered(self, num_items: int, seconds: float, now: float) -> None:
        """A batch has ended.

        Args:
            num_items (`int`): Rows of it.
            seconds (`float`): It took.
            now (`float`): When it ended, by any clock.
        """
        if self._num_answered:
            back = min(1.0, self._num_back / self._num_answered)
            self._share_back += _LEARNING_RATE * (back - self._share_back)
        self._ended, self._num_answered, self._num_back = now, num_items, 0
        self.seconds = min(_MOST_SECONDS, _SHARE_OF_A_BATCH * seconds)

    def num_expected(self, now: float) -> int:
        """Items that are worth a wait, because they are likely to come in the time that is left."""
        if now > self._ended + self.seconds or self._share_back < _LEAST_SHARE_BACK:
            return 0
        return max(0, round(self._share_back * self._num_answered) - self._num_back)
