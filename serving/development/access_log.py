"""What the development server logs of requests."""

from __future__ import annotations

import time
from collections.abc import Callable

_SHOWN_CHARACTERS = 300


class AccessLog:
    """A line for every refused request, and for the others too where it is asked for.

    Args:
        log: is called with each line.
        is_whole: whether requests that succeed get a line.
    """

    def __init__(self, log: Callable[[str], None], is_whole: bool) -> None:
        self._log, self._is_whole = log, is_whole

    def accepted(self, what: str, status: int | str, began: float) -> None:
        """A request that `what` describes, which began at this `time.monotonic()`."""
        if self._is_whole:
            self._write(what, status, began)

    def refused(self, what: str, status: int | str, began: float, message: str) -> None:
        """One that failed, and why."""
        self._write(what, status, began, f": {message}")

    def _write(self, what: str, status: int | str, began: float, message: str = "") -> None:
        line = f"{what} {status} {1000 * (time.monotonic() - began):.0f} ms{message}"
        shown = " ".join(line.split())[:_SHOWN_CHARACTERS]
        # No request may move the cursor of who reads it.
        self._log("".join(each if each.isprintable() else ascii(each)[1:-1] for each in shown))
