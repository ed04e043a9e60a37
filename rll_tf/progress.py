"""How far long work is, on standard error: on a terminal a bar, elsewhere a line now and then.

The commands show it. In your own Python nothing is shown unless the environment variable `RLL_PROGRESS` is 1;
where it is 0 the commands are silent too.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

DELAY_S = 1.0  # what takes no longer shows nothing
COLUMNS = 80  # at most, and the terminal's width
_REDRAWN_EVERY_S, _LINE_EVERY_S = 0.1, 30.0
_COUNTED = "{desc}: |{bar}| {n_fmt}/{total_fmt}, {remaining} left"
_UNCOUNTED = "{desc}: {n_fmt}{unit}, {elapsed}"
_TIMED = "{desc}, {elapsed}"


def progress(
    items: Iterable[Any] | None = None,
    what: str = "",
    *,
    total: int | None = None,
    unit: str = "",
    layout: str | None = None,
    delay_s: float | None = None,
    **options: Any,
) -> Any:
    """`items` as they are, or None to call `update` by hand, and how far they are.

    Args:
        items: what is iterated over.
        what: is being done.
        total: how many there are, if not `len(items)`; where neither is known, they are counted.
        unit: what is counted, with a space before it.
        layout: tqdm's `bar_format`; its bar takes the room that is left.
        delay_s: how long nothing is shown; None: `DELAY_S`.
        **options: others of tqdm's.

    Returns:
        A `tqdm.tqdm`.
    """
    if total is None:
        with contextlib.suppress(TypeError):  # a dataset raises it too where it doesn't know its length
            total = len(items)  # type: ignore[arg-type]
    layout = layout or (_UNCOUNTED if total is None else _COUNTED)
    on_terminal = sys.stderr.isatty()
    return _Bar(
        items,
        desc=what,
        total=total,
        unit=unit,
        bar_format=layout if on_terminal else layout.replace("|{bar}| ", ""),
        delay=DELAY_S if delay_s is None else delay_s,
        mininterval=_REDRAWN_EVERY_S if on_terminal else _LINE_EVERY_S,
        miniters=0,
        smoothing=0.1,
        leave=False,
        nrows=20,  # so many bars are shown at most
        disable=not _shown(),
        **options,
    )


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show how long work takes whose end can't be foreseen."""
    with progress(what=what, layout=_TIMED) as bar:
        if bar.disable:
            yield
            return
        finished = threading.Event()

        def tick() -> None:
            while not finished.wait(1):
                bar.update(0)

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            finished.set()
            ticking.join()


def say(line: str) -> None:
    """Print a line on standard error, above the bars."""
    _Bar.write(line, file=sys.stderr)
    sys.stderr.flush()


def _shown() -> bool:
    return os.environ.get("RLL_PROGRESS", "0") != "0"


class _Bar(tqdm):
    """On what is no terminal, whole lines in place of one that is written again and again."""

    monitor_interval = 0  # no thread
    _lock = threading.RLock()  # not one between processes

    @property
    def format_dict(self) -> dict[str, Any]:
        columns = 0  # what a terminal says that doesn't know
        with contextlib.suppress(OSError, ValueError):
            columns = os.get_terminal_size(self.fp.fileno()).columns
        return {**super().format_dict, "ncols": min(COLUMNS, columns or COLUMNS) - 3}  # ^C fits too

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if self.fp.isatty():
            return super().display(msg, pos)
        if msg is None:
            self.fp.write(str(self) + "\n")
            self.fp.flush()
        return False

    def clear(self, nolock: bool = False) -> None:
        if self.fp.isatty():
            super().clear(nolock)
