"""An exported model, loaded in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from serving.client import SearchResult, parse_rejection
from serving.errors import PictureRejected
from serving.export import METADATA_FILE
from serving.signatures import DEFAULT, SEARCH
from serving.versions import served_versions, verify_manifest


class Artefact:
    """The newest version in an exported folder.

    Args:
        folder: the folder that `export` wrote to, or one version in it.

    Raises:
        FileNotFoundError: there is no SavedModel.
        ValueError: the SavedModel is not one of this project's, or not as it was exported.

    Attributes:
        folder: the version's.
        metadata: what the export says of it.
        is_verified: whether its files are those of its manifest; False where it was exported before there
            were manifests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = _newest_version(folder)
        metadata = self.folder / METADATA_FILE
        if not metadata.is_file():
            raise ValueError(f"{self.folder} was not written by rll export: it has no {METADATA_FILE}")
        self.is_verified = verify_manifest(self.folder)
        try:
            self.metadata: dict[str, Any] = json.loads(metadata.read_text(encoding="utf-8"))
            self.metadata["levels"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{metadata} must be what rll export wrote; got {error!r}") from error
        try:
            loaded = tf.saved_model.load(str(self.folder))
        except (tf.errors.OpError, ValueError, OSError, IndexError) as error:
            raise ValueError(f"{self.folder} is not a whole SavedModel: {error}") from error
        self._loaded = loaded  # holds the variables that the signatures use
        self._signatures = loaded.signatures

    @property
    def levels(self) -> dict[str, int]:
        """Level -> how many numbers its embedding has."""
        return self.metadata["levels"]

    def width(self, level: str | None = None) -> int:
        """How many numbers the embedding of a level has, or of all levels concatenated.

        Raises:
            ValueError: there is no such level.
        """
        if level is None:
            return sum(self.levels.values())
        if level not in self.levels:
            raise ValueError(f"{self.folder} has no level {level!r}; it has: {', '.join(self.levels)}")
        return self.levels[level]

    def embed(self, pictures: Sequence[bytes], level: str | None = None) -> np.ndarray:
        """Embed picture files' bytes: [n, d] float32 of one level, or of all levels concatenated.

        Any number of pictures; they are run in batches as large as the artefact's limit allows.

        Raises:
            ValueError: there is no such level.
            PictureRejected: one of the pictures can't be decoded or is too large.
        """
        self.width(level)
        return np.concatenate([batch["embedding"] for batch in self._run(level or DEFAULT, pictures)])

    def search(self, pictures: Sequence[bytes]) -> SearchResult:
        """The nearest pictures of the gallery that is packed into the artefact, for each of these.

        Raises:
            ValueError: there is no gallery in it.
            PictureRejected: one of the pictures can't be decoded or is too large.
        """
        if SEARCH not in self._signatures:
            raise ValueError(f"{self.folder} has no gallery packed into it; give --gallery FILE.npz")
        batches = list(self._run(SEARCH, pictures))
        columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        for name in ("paths", "class_names"):
            texts = [os.fsdecode(content) for content in columns[name].ravel()]
            columns[name] = np.array(texts, str).reshape(columns[name].shape)
        return SearchResult(**columns)

    def _run(self, signature: str, pictures: Sequence[bytes]) -> Iterator[dict[str, np.ndarray]]:
        """Run a signature batch by batch."""
        size = self.metadata.get("limits", {}).get("max_batch") or max(1, len(pictures))
        for first in range(0, max(1, len(pictures)), size):
            yield self._run_batch(signature, pictures[first : first + size], first)

    def _run_batch(self, signature: str, batch: Sequence[bytes], first: int) -> dict[str, np.ndarray]:
        try:
            outputs = self._signatures[signature](images=tf.constant(list(batch), tf.string))
        except tf.errors.InvalidArgumentError as error:
            index, reason = parse_rejection(str(error.message))
            if index is None and len(batch) == 1:
                index = 0
            elif index is None:  # a decoder does not know which picture it decodes
                for number, picture in enumerate(batch):
                    self._run_batch(signature, [picture], first + number)
            raise PictureRejected(None if index is None else first + index, reason) from error
        return {name: values.numpy() for name, values in outputs.items()}


def _newest_version(folder: Path) -> Path:
    if (folder / "saved_model.pb").is_file():
        return folder
    return folder / str(served_versions(folder)[-1])
