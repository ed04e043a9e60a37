"""Scanned digits, small enough for a smoke test."""

from __future__ import annotations

import numpy as np

from rll_tf.data.catalogue import Catalogue

# Training sees 0 to 4 alone, so what retrieval among the others measures was never taught.
_SPLITS = {"train": range(5), "validation": range(5, 7), "test": range(7, 10)}


def digits() -> Catalogue:
    """The 1,797 scanned digits of scikit-learn, [1797, 8, 8, 1] uint8, dark ink on white.

    For trying whether a pipeline runs; five training classes are too few to measure a loss.

    Returns:
        The catalogue, in scikit-learn's order; "train" holds the classes 0 to 4, "validation" 5 and 6,
        "test" 7 to 9; `paths` such as "digits/7/0042".
    """
    from sklearn.datasets import load_digits  # takes a second: only where digits are used

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    ink = bunch.images.astype(np.int64)  # 0 to 16, whole numbers
    return Catalogue(
        spec="digits",
        paths=tuple(f"digits/{label}/{index:04d}" for index, label in enumerate(labels)),
        labels=labels,
        class_names=tuple(str(digit) for digit in range(10)),
        splits={name: np.flatnonzero(np.isin(labels, classes)) for name, classes in _SPLITS.items()},
        pixels=(255 - (ink * 255 + 8) // 16).astype(np.uint8)[..., np.newaxis],
    )
