"""A new version of an exported model: whole, or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from serving.versions import next_number

# A server passes over folders whose names are no numbers.
DRAFT = ".partial-"
# The check ends an export that takes longer than minutes.
ABANDONED_S = 24 * 3600
# The server runs as another user, whatever the umask of the one who exports.
READABLE_FOLDER, READABLE_FILE = 0o755, 0o644


def make_base(to: Path) -> None:
    """Make the folder of versions, readable by all; one that is there stays as it is."""
    is_new = not to.exists()
    to.mkdir(parents=True, exist_ok=True)
    if is_new:
        to.chmod(READABLE_FOLDER)


@contextlib.contextmanager
def drafting(to: Path) -> Iterator[Path]:
    """A new folder in `to` to write a version in, under a name that servers pass over.

    It is deleted in the end, unless it was published. An export that is killed leaves its draft; one that
    begins a day later or more deletes it.
    """
    for left in to.glob(f"{DRAFT}*"):
        with contextlib.suppress(FileNotFoundError):  # another export ended
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=to))
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def publish(draft: Path, to: Path) -> Path:
    """Rename a draft to the number after all in `to`, once all of it is on the disk, readable by all.

    Of exports that end at the same time each gets a number of its own: a rename onto a version fails.

    Returns:
        The folder of the new version.
    """
    for path in [*draft.rglob("*"), draft]:
        path.chmod(READABLE_FOLDER if path.is_dir() else READABLE_FILE)
        _to_disk(path)
    while True:
        version = to / str(next_number(to))
        try:
            os.rename(draft, version)
        except OSError:
            if not version.exists():
                raise
        else:
            _to_disk(to)
            return version


def _to_disk(path: Path) -> None:
    """What a file or folder holds outlasts a power failure."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
