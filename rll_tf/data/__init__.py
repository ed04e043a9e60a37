"""What pictures are there, and what is in a batch?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from rll_tf.data import digits, folder, glyphs
from rll_tf.data.catalogue import Catalogue
from rll_tf.data.images import Augmentation, Preprocessing
from rll_tf.data.pipeline import (
    CorruptPictureError,
    evaluation_batches,
    load_pictures,
    name_corrupt,
    training_batches,
)
from rll_tf.data.sampler import ClassBalancedBatches, class_balanced_batches

__all__ = [
    "DATASETS",
    "Augmentation",
    "Catalogue",
    "ClassBalancedBatches",
    "CorruptPictureError",
    "Preprocessing",
    "class_balanced_batches",
    "evaluation_batches",
    "load_pictures",
    "name_corrupt",
    "open_dataset",
    "training_batches",
]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What opens a data set, whether its SPEC carries a path, what it is, where it lies."""

    open: Callable[..., Catalogue]
    has_path: bool
    what: str
    where: str


DATASETS = {
    "glyphs": Dataset(
        glyphs.glyphs, False, "letters of many alphabets in sixteen fonts", "drawn when asked for"
    ),
    "digits": Dataset(digits.digits, False, "scanned digits, 8×8 px: a smoke test", "inside scikit-learn"),
    "folder": Dataset(folder.folder, True, "your own pictures", "one directory a class, however deep"),
}


def open_dataset(spec: str) -> Catalogue:
    """Open a data set by its SPEC: `"glyphs"`, `"digits"` or `"folder:PATH"`.

    Returns:
        A `Catalogue`: paths or pixels, integer labels, class names, and splits that share no class.

    Raises:
        ValueError: the name is unknown, or a path is missing or not wanted.
        FileNotFoundError: the path does not exist.
    """
    name, colon, path = spec.partition(":")
    if name not in DATASETS:
        known = ", ".join(f"{name}:PATH" if entry.has_path else name for name, entry in DATASETS.items())
        raise ValueError(f"unknown data set {spec!r}; known are: {known}")
    dataset = DATASETS[name]
    if dataset.has_path:
        if not path:
            raise ValueError(f"data set {name!r} needs a path, as in {name}:PATH; got {spec!r}")
        return dataset.open(path)
    if colon:
        raise ValueError(f"data set {name!r} takes no path; got {spec!r}")
    return dataset.open()
