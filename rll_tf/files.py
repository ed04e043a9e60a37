"""Files that are whole at any time: written under another name, then moved into place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a path to write to; on leaving, what was written there becomes `file` in one move.

    Whatever goes wrong before that, `file` keeps what it held.
    """
    # The suffix stays last: Keras and NumPy choose the format by it.
    partial = file.with_name(f"partial-{file.name}")
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, file)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(file)  # an error of a write names no file
        raise
    finally:
        partial.unlink(missing_ok=True)
