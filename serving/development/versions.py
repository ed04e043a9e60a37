"""The folder of versions: the newest one is loaded, and swapped in under running requests."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2

from serving.development.refusal import INTERNAL, NOT_FOUND, RefusalError
from serving.development.servable import Servable

State = get_model_status_pb2.ModelVersionStatus.State


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """What the status call tells of a version: its state, and why it ended if it was refused."""

    state: int
    error_code: int = 0
    error_message: str = ""


class Versions:
    """Serves the version with the largest number, as TensorFlow Serving does unless told otherwise.

    A new version is loaded and warmed up beside the old one, then takes its place; requests that began with
    the old one end with it. A version that can't be loaded is refused, and not tried again unless it goes
    away and comes back; the old one goes on answering, whatever happens to its folder.

    Args:
        base: the folder of versions.
        poll_s: seconds between two looks at it.
        say: told in a line of every version that is taken up or refused.

    Raises:
        FileNotFoundError: there is no version.
        ValueError: the newest version can't be loaded.
    """

    def __init__(self, base: Path, poll_s: float, say: Callable[[str], None]) -> None:
        self._base, self._poll_s, self._say = base, poll_s, say
        self._lock = threading.Lock()
        self._statuses: dict[int, VersionStatus] = {}
        self._current: Servable | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)
        if not self._numbers():
            raise FileNotFoundError(f"{base} holds no version to serve: it has no folder named by a number")
        self.look()
        if self._current is None:
            newest = max(self._statuses)
            raise ValueError(f"{base / str(newest)}: {self._statuses[newest].error_message}")
        self._thread.start()

    def get(self, version: int | None = None) -> Servable:
        """The version that answers now.

        Raises:
            RefusalError: another one is asked for.
        """
        with self._lock:
            current = self._current
        if current is None or version not in {None, current.version}:
            raise RefusalError(NOT_FOUND, f"Servable not found for request: version {version}")
        return current

    def statuses(self) -> dict[int, VersionStatus]:
        """Version -> status, of every version seen so far."""
        with self._lock:
            return dict(sorted(self._statuses.items(), reverse=True))

    def look(self) -> None:
        """Look at the folder once, and take up what is new."""
        numbers = self._numbers()
        if not numbers:
            return
        with self._lock:
            for gone in set(self._statuses) - set(numbers):
                if self._current is None or gone != self._current.version:
                    del self._statuses[gone]
            newest = max(numbers)
            if newest in self._statuses and self._statuses[newest].error_code:
                return
            if self._current is not None and newest == self._current.version:
                return
            self._statuses[newest] = VersionStatus(State.LOADING)
        self._load(newest, numbers[newest])

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()

    def _load(self, number: int, folder: Path) -> None:
        try:
            servable = Servable(folder, number)
        except tf.errors.OpError as error:
            self._refuse(number, error.error_code, error.message)
        except Exception as error:  # a damaged file can raise anything, and the old version must go on
            self._refuse(number, INTERNAL, str(error))
        else:
            with self._lock:
                old, self._current = self._current, servable
                self._statuses[number] = VersionStatus(State.AVAILABLE)
                if old is not None:
                    self._statuses[old.version] = VersionStatus(State.END)
            self._say(f"version {number} answers ({servable.warmed_up_requests} warm-up requests)")

    def _refuse(self, number: int, code: int, message: str) -> None:
        message = f"version {number} can't be loaded: {' '.join(message.split())}"
        with self._lock:
            self._statuses[number] = VersionStatus(State.END, code, message)
        self._say(message)

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_s):
            try:
                self.look()
            except OSError as error:  # a folder that is away for a while
                self._say(f"{self._base} can't be read: {error}")

    def _numbers(self) -> dict[int, Path]:
        return {
            int(entry.name): entry
            for entry in self._base.iterdir()
            if entry.name.isascii() and entry.name.isdigit() and entry.is_dir()
        }
