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

    It is deleted in the end, unless it was published. An export that is killed leaves its draft; the next
    one deletes it. A living export holds a lock on its draft, which the system takes back when the process
    ends, however it ends.
    """
    with contextlib.ExitStack() as held:
        with _locked(to, blocking=True):  # nobody takes the new draft for a dead one
            for draft in to.glob(f"{DRAFT}*"):
                with contextlib.suppress(OSError), _locked(draft) as is_locked:
                    if is_locked:
                        shutil.rmtree(draft, ignore_errors=True)
            draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=to))
            held.callback(shutil.rmtree, draft, ignore_errors=True)
            held.enter_context(_locked(draft))
        yield draft


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


@contextlib.contextmanager
def _locked(folder: Path, *, blocking: bool = False) -> Iterator[bool]:
    """Whether the folder is locked by this process: some systems and network disks can't.

    Raises:
        BlockingIOError: a living process holds the lock.
    """
    if fcntl is None:
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
            is_locked = True
        except BlockingIOError:
            raise
        except OSError:
            is_locked = False
        yield is_locked
    finally:
        os.close(descriptor)


def _to_disk(path: Path) -> None:
    """What a file or folder holds outlasts a power failure."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
