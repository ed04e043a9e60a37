"""The folder of versions: the newest one is loaded, and swapped in under running requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2

from serving.development.errors import INTERNAL, NOT_FOUND, StatusError
from serving.development.servable import Servable

ModelVersionStatus = get_model_status_pb2.ModelVersionStatus
State = ModelVersionStatus.State


class Versions:
    """Serves the version with the largest number, as TensorFlow Serving does by default.

    A new version is loaded and warmed up beside the old one, then replaces it; requests that began with
    the old one end with it. A version that can't be loaded is rejected, and not tried again unless it goes
    away and comes back; the old one stays, whatever happens to its folder.

    Args:
        base: the folder of versions.
        poll_s: seconds between two looks at it.
        log: is called with a line for every version that is loaded or rejected.

    Raises:
        FileNotFoundError: there is no version.
        ValueError: the newest version can't be loaded.
    """

    def __init__(self, base: Path, poll_s: float, log: Callable[[str], None]) -> None:
        self._base, self._poll_s, self._log = base, poll_s, log
        self._lock = threading.Lock()
        self._statuses: dict[int, Any] = {}
        self._current: Servable | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)
        if not self._folders():
            raise FileNotFoundError(f"{base} holds no version to serve: it has no folder named by a number")
        self.look()
        if self._current is None:
            newest = max(self._statuses)
            raise ValueError(f"{base / str(newest)}: {self._statuses[newest].status.error_message}")
        self._thread.start()

    def get(self, version: int | None = None) -> Servable:
        """The version that is served now.

        Raises:
            StatusError: another one is requested.
        """
        with self._lock:
            current = self._current
        if current is None or version not in {None, current.version}:
            raise StatusError(NOT_FOUND, f"Servable not found for request: version {version}")
        return current

    def statuses(self) -> list[Any]:
        """A ModelVersionStatus of every version seen so far, the newest first."""
        with self._lock:
            return [self._statuses[number] for number in sorted(self._statuses, reverse=True)]

    def look(self) -> None:
        """Look at the folder once, and load what is new."""
        folders = self._folders()
        if not folders:
            return
        newest = max(folders)
        with self._lock:
            current = None if self._current is None else self._current.version
            for gone in set(self._statuses) - set(folders) - {current}:
                del self._statuses[gone]
            is_rejected = newest in self._statuses and self._statuses[newest].status.error_code
            if is_rejected or newest == current:
                return
            self._set_status(newest, State.LOADING)
        self._load(newest, folders[newest])

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()

    def _load(self, number: int, folder: Path) -> None:
        try:
            servable = Servable(folder, number)
        except Exception as error:  # a damaged file can raise anything, and the old version must stay
            code = error.error_code if isinstance(error, tf.errors.OpError) else INTERNAL
            message = f"version {number} can't be loaded: {' '.join(str(error).split())}"
            with self._lock:
                self._set_status(number, State.END, code, message)
            self._log(message)
            return
        with self._lock:
            old, self._current = self._current, servable
            self._set_status(number, State.AVAILABLE)
            if old is not None:
                self._set_status(old.version, State.END)
        self._log(f"version {number} is available ({servable.warmup_requests} warm-up requests)")

    def _set_status(self, number: int, state: int, code: int = 0, message: str = "") -> None:
        status = ModelVersionStatus(version=number, state=state)
        status.status.error_code, status.status.error_message = code, message
        self._statuses[number] = status

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_s):
            try:
                self.look()
            except OSError as error:  # a folder that is away for a while
                self._log(f"{self._base} can't be read: {error}")

    def _folders(self) -> dict[int, Path]:
        return {
            int(entry.name): entry
            for entry in self._base.iterdir()
            if entry.name.isascii() and entry.name.isdigit() and entry.is_dir()
        }
