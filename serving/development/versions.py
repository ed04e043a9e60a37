"""The folder of versions: those that its configuration names are loaded, and swapped under requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2

from serving.development.errors import INTERNAL, NOT_FOUND, StatusError, invalid
from serving.development.servable import Servable
from serving.versions import labels_of, loaded, verify_manifest

ModelVersionStatus = get_model_status_pb2.ModelVersionStatus
State = ModelVersionStatus.State


class Versions:
    """Serves the versions that `models.pbtxt` names, by default the two with the largest numbers.

    A version is loaded and warmed up beside the others; one that is not named any more, or whose folder is
    gone, is unloaded as soon as one that is named is loaded, and requests that began with it end with it. A
    version that can't be loaded is rejected, and not tried again unless it goes away and comes back.

    Args:
        base: the folder of versions.
        poll_s: seconds between two looks at it.
        log: is called with a line for every version that is loaded, rejected or unloaded.

    Raises:
        FileNotFoundError: there is no version.
        ValueError: none of the versions can be loaded.
    """

    def __init__(self, base: Path, poll_s: float, log: Callable[[str], None]) -> None:
        self._base, self._poll_s, self._log = base, poll_s, log
        self._lock = threading.Lock()
        self._statuses: dict[int, Any] = {}
        self._loaded: dict[int, Servable] = {}
        self._labels: dict[str, int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)
        if not self._folders():
            raise FileNotFoundError(f"{base} holds no version to serve: it has no folder named by a number")
        self.look()
        if not self._loaded:
            newest = max(self._statuses)
            raise ValueError(f"{base / str(newest)}: {self._statuses[newest].status.error_message}")
        self._thread.start()

    def get(self, version: int | None = None, label: str = "") -> Servable:
        """The version with this number or label, by default the largest that is loaded.

        Raises:
            StatusError: it is not loaded, or there is no such label.
        """
        with self._lock:
            if label:
                if label not in self._labels:
                    raise invalid(f"Unrecognized servable version label: {label}")
                version = self._labels[label]
            servable = self._loaded.get(max(self._loaded, default=0) if version is None else version)
        if servable is None:
            which = "Latest" if version is None else f"version {version}"
            raise StatusError(NOT_FOUND, f"Servable not found for request: {which}")
        return servable

    def statuses(self) -> list[Any]:
        """A ModelVersionStatus of every version seen so far, the newest first."""
        with self._lock:
            return [self._statuses[number] for number in sorted(self._statuses, reverse=True)]

    def look(self) -> None:
        """Look at the folder once: load what is new, unload what is not wanted any more."""
        folders = self._folders()
        labels = labels_of(self._base)
        wanted = set(loaded(folders, labels))
        self._settle(wanted, labels)
        with self._lock:
            for gone in set(self._statuses) - set(folders) - set(self._loaded):
                del self._statuses[gone]
            refused = {number for number, row in self._statuses.items() if row.status.error_code}
            new = wanted - set(self._loaded) - refused
        for number in sorted(new, reverse=True):
            self._load(number, folders[number])
            self._settle(wanted, labels)

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()

    def _settle(self, wanted: set[int], labels: dict[str, int]) -> None:
        """Move labels to versions that are loaded; unload the unwanted, unless nothing else is loaded."""
        with self._lock:
            moved = {label: number for label, number in labels.items() if number in self._loaded}
            self._labels = {
                label: moved.get(label, self._labels.get(label, labels[label])) for label in labels
            }
            if wanted and not wanted & set(self._loaded):
                return
            for number in set(self._loaded) - wanted:
                # Requests that began with it hold it until they end.
                del self._loaded[number]
                self._set_status(number, State.END)
                self._log(f"version {number} is unloaded")

    def _load(self, number: int, folder: Path) -> None:
        with self._lock:
            self._set_status(number, State.LOADING)
        try:
            is_verified = verify_manifest(folder)
            servable = Servable(folder, number)
        except Exception as error:  # a damaged file can raise anything, and the others must stay
            code = error.error_code if isinstance(error, tf.errors.OpError) else INTERNAL
            message = f"version {number} can't be loaded: {' '.join(str(error).split())}"
            with self._lock:
                self._set_status(number, State.END, code, message)
            self._log(message)
            return
        with self._lock:
            self._loaded[number] = servable
            self._set_status(number, State.AVAILABLE)
        verified = "" if is_verified else "; exported before there were manifests: its files are not verified"
        self._log(f"version {number} is available ({servable.warmup_requests} warm-up requests){verified}")

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
