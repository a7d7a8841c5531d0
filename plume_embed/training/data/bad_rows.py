"""Malformed rows of the data: each is reported, and too many of them are refused."""

from collections.abc import Callable


class BadRows:
    """Counts bad rows of one reading, whatever they are read from.

    Args:
        most (`int`): `max_bad_lines`: how many are left out before the data are refused.
        report: Called with a message for each of them.
    """

    def __init__(self, most: int, report: Callable[[str], None]):
        self._most, self._report, self._count = most, report, 0

    def add(self, error: ValueError) -> None:
        """One more.

        Args:
            error (`ValueError`): Its place, and what is wrong.

        Raises:
            ValueError: that is one too many.
        """
        self._count += 1
        self._report(str(error))
        if self._count > self._most:
            raise ValueError(
                f"{error} That is bad row {self._count}, and max_bad_lines is {self._most}: mend the data, or raise "
                "the limit to leave such rows out."
            ) from error
