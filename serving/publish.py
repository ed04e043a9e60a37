"""A new version of an exported model: whole, or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what a killed export leaves stays until it is deleted by hand
    fcntl = None  # type: ignore[assignment]

# A server passes over folders whose names are no numbers.
DRAFT = ".partial-"
# It runs as another user, whatever the umask of the one who exports.
READABLE_FOLDER, READABLE_FILE = 0o755, 0o644


def make_base(to: Path) -> None:
    """Make the folder of versions, readable by all; one that is there stays as it is."""
    is_new = not to.exists()
    to.mkdir(parents=True, exist_ok=True)
    if is_new:
        to.chmod(READABLE_FOLDER)


@contextlib.contextmanager
def drafting(to: Path) -> Iterator[Path]:
    """A new folder beneath `to` to write a version in, under a name that servers pass over.

    It is gone when this ends, unless it was published. An export that is killed leaves its draft; the next
    one deletes it. A draft is told from a dead one by a lock, which the system takes back when its process
    ends, however it ends.
    """
    _delete_dead(to)
    draft, lock = _locked_draft(to)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def publish(draft: Path, to: Path) -> Path:
    """Rename a draft to the number after the largest in `to`, once all of it is on the disk, readable by all.

    Of exports that end at the same time each gets a number of its own: a rename onto a version fails.

    Returns:
        The folder of the new version.
    """
    for path in [*draft.rglob("*"), draft]:
        path.chmod(READABLE_FOLDER if path.is_dir() else READABLE_FILE)
        _to_disk(path)
    while True:
        taken = [int(entry.name) for entry in to.iterdir() if entry.name.isdigit()]
        version = to / str(max(taken, default=0) + 1)
        try:
            os.rename(draft, version)
        except OSError:
            if not version.exists():
                raise
        else:
            _to_disk(to)
            return version


def _locked_draft(to: Path) -> tuple[Path, int | None]:
    """A new draft and what holds its lock: None where folders can't be locked, as on some network disks."""
    while True:
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=to))
        lock = None
        with contextlib.suppress(FileNotFoundError):
            try:
                lock = _lock(draft)
            except BlockingIOError:
                continue  # another export takes it for dead and is deleting it
            if draft.exists():
                return draft, lock
        if lock is not None:
            os.close(lock)


def _delete_dead(to: Path) -> None:
    for draft in to.glob(f"{DRAFT}*"):
        with contextlib.suppress(OSError):  # alive, or deleted meanwhile by another export
            lock = _lock(draft)
            if lock is not None:
                shutil.rmtree(draft, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder for as long as the returned file descriptor is open; None where that can't be done.

    Raises:
        BlockingIOError: a living process holds the lock.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _to_disk(path: Path) -> None:
    """What a file or folder holds outlasts a power failure."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
