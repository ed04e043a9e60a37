"""The nearest known names, for the error of a misspelt one."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


@contextlib.contextmanager
def suggesting(known: Iterable[str], *names: str | None) -> Iterator[None]:
    """Add the nearest known names to a ValueError that is raised while one of `names` is unknown."""
    try:
        yield
    except ValueError as error:
        known = list(known)
        unknown = [name for name in names if name is not None and name not in known]
        nearest = [near for name in unknown for near in difflib.get_close_matches(name.lower(), known)]
        if not nearest:
            raise
        raise ValueError(f"{error}; did you mean {' or '.join(nearest)}?") from error
