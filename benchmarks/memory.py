"""The memory of a process, and a fresh process to measure in."""

from __future__ import annotations

import multiprocessing
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def status_bytes(field: str, process: int | str = "self") -> int:
    """A process's resident memory on Linux: `VmRSS` now, `VmHWM` at its peak."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(re.findall(rf"{field}:\s+(\d+) kB", status)[0])


def peak_bytes() -> int:
    """The largest resident set so far. On Linux from /proc: what getrusage reports begins at the parent's."""
    if sys.platform == "linux":
        return status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns; None where the process ended without, such as for want of memory."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=_put, args=(results, function, arguments))
    process.start()
    process.join()
    return None if results.empty() else results.get()


def _put(results: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    results.put(function(*arguments))
