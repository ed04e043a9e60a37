"""A gallery that `rll embed` wrote."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np


def open_gallery(file: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file that `rll embed` wrote, checked.

    Returns:
        `embeddings` [n, d], `labels` [n] integers that index `class_names`, `paths` [n], `class_names`
        [classes] and `level` [], the name of the embedding, `"concat"` for all levels side by side.

    Raises:
        ValueError: it is not such a file, or is damaged.
        OSError: it can't be read.
    """
    wanted = ("embeddings", "labels", "paths", "class_names", "level")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            gallery = {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{file} must be a file that rll embed wrote: {error}") from error
    missing = [name for name in wanted if name not in gallery]
    if missing:
        raise ValueError(f"{file} must hold the arrays {', '.join(wanted)}; {', '.join(missing)} is missing")
    parts = [gallery[name] for name in ("embeddings", "labels", "paths")]
    labels = gallery["labels"]
    if (
        [part.ndim for part in parts] != [2, 1, 1]
        or len({len(part) for part in parts}) > 1
        or not labels.size
    ):
        shapes = ", ".join(f"{name} {gallery[name].shape}" for name in ("embeddings", "labels", "paths"))
        raise ValueError(f"{file} must hold [n, d] embeddings, n labels and n paths; it holds {shapes}")
    if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < gallery["class_names"].size:
        raise ValueError(f"{file} must hold labels that index its {gallery['class_names'].size} class_names")
    return gallery
