"""An exported model, loaded in this process."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from serving.client import SearchResult
from serving.export import METADATA_FILE


class Artefact:
    """The newest version in an exported folder.

    Args:
        folder: what `export` was told to write `to`, or one version in it.

    Raises:
        FileNotFoundError: there is no SavedModel.
        ValueError: the SavedModel is not one of this project's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = _newest_version(folder)
        metadata = self.folder / METADATA_FILE
        if not metadata.is_file():
            raise ValueError(f"{self.folder} was not written by rll export: it has no {METADATA_FILE}")
        self.metadata: dict[str, Any] = json.loads(metadata.read_text(encoding="utf-8"))
        try:
            loaded = tf.saved_model.load(str(self.folder))
        except (tf.errors.OpError, ValueError, OSError) as error:
            raise ValueError(f"{self.folder} is not a whole SavedModel: {error}") from error
        self._loaded = loaded  # holds the variables that the signatures use
        self._signatures = loaded.signatures

    @property
    def levels(self) -> dict[str, int]:
        """Level -> how many numbers its embedding has."""
        return self.metadata["levels"]

    def embed(self, pictures: Sequence[bytes], level: str | None = None) -> np.ndarray:
        """Embed picture files' bytes: [n, d] float32 of one level, or of all levels concatenated.

        Any number of pictures: they are asked for in requests as large as the artefact answers.

        Raises:
            ValueError: there is no such level.
            tf.errors.InvalidArgumentError: one of the pictures can't be decoded or is too large.
        """
        if level is not None and level not in self.levels:
            raise ValueError(f"{self.folder} has no level {level!r}; it has: {', '.join(self.levels)}")
        run = self._signatures[level or "serving_default"]
        most = self.metadata.get("limits", {}).get("max_batch") or max(1, len(pictures))
        starts = range(0, max(1, len(pictures)), most)
        parts = (list(pictures[start : start + most]) for start in starts)
        return np.concatenate([run(images=tf.constant(part, tf.string))["embedding"] for part in parts])

    def search(self, pictures: Sequence[bytes]) -> SearchResult:
        """The nearest pictures of the gallery that is packed into the artefact, for each of these.

        Raises:
            ValueError: there is no gallery in it.
            tf.errors.InvalidArgumentError: one of the pictures can't be decoded or is too large.
        """
        if "search" not in self._signatures:
            raise ValueError(f"{self.folder} has no gallery packed into it; give --gallery FILE.npz")
        answer = self._signatures["search"](images=tf.constant(list(pictures), tf.string))
        columns = {name: values.numpy() for name, values in answer.items()}
        for name in ("paths", "class_names"):
            texts = [os.fsdecode(content) for content in columns[name].ravel()]
            columns[name] = np.array(texts, str).reshape(columns[name].shape)
        return SearchResult(**columns)


def refusal(error: tf.errors.InvalidArgumentError) -> str:
    """What an artefact's graph says of a request that it refuses; the decoder's words where it is theirs."""
    message = str(error.message)
    found = re.search(r"assertion failed: \[(.*)\]", message)
    if found:
        return found[1]
    lines = [line.strip() for line in message.splitlines()]
    return [line for line in lines if line and not line.startswith("[[")][-1]  # [[…]] names the graph's node


def _newest_version(folder: Path) -> Path:
    if (folder / "saved_model.pb").is_file():
        return folder
    if not folder.is_dir():
        raise FileNotFoundError(f"an exported model must be a folder; {folder} is none")
    versions = [
        entry for entry in folder.iterdir() if entry.name.isdigit() and (entry / "saved_model.pb").is_file()
    ]
    if not versions:
        raise FileNotFoundError(f"{folder} holds no exported model: it has no <version>/saved_model.pb")
    return max(versions, key=lambda version: int(version.name))
