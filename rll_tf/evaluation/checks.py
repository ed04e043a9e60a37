"""Checks of embeddings and labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def check_embeddings(embeddings: ArrayLike, name: str = "embeddings") -> np.ndarray:
    """The embeddings as an [n, d] array of real numbers, n and d at least 1, every number finite.

    Floating types are kept (bfloat16 becomes float32); integers, e.g. raw pixels, stay integers.

    Raises:
        ValueError: they are anything else; the message names the first offending row.
    """
    array = np.asarray(embeddings)
    if array.dtype.kind == "V" and array.dtype.names is None:  # bfloat16 and its like, from ml_dtypes
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be real numbers: got dtype {array.dtype}")
    if array.ndim != 2 or 0 in array.shape:  # rows and columns
        raise ValueError(f"{name} must be [n, d] with n and d at least 1: got shape {array.shape}")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        value = array[row][~np.isfinite(array[row])][0]
        raise ValueError(
            f"{name} must be finite: row {row} holds {value}, the first of {(~finite).sum()} rows"
        )
    return array


def check_labels(labels: ArrayLike | Sequence[str], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The classes' names [c], sorted, and [count] int64 indices into them.

    Labels are compared as what they are, integers of any size or strings, never as floats: in float32
    16,777,216 and 16,777,217 are one number.

    Raises:
        ValueError: there are not `count` labels, or they are neither integers nor strings.
    """
    array = np.asarray(labels)
    if array.ndim != 1:
        raise ValueError(f"labels must be [n], one per row of the embeddings: got shape {array.shape}")
    if len(array) != count:
        raise ValueError(f"every embedding needs one label: got {count} embeddings, {len(array)} labels")
    kinds = {type(label) for label in array} if array.dtype.kind == "O" else set()
    if array.dtype.kind not in "iuUS" and kinds not in ({str}, {bytes}, {int}):
        raise ValueError(f"labels must be integers or strings: got dtype {array.dtype}")
    names, codes = np.unique(array, return_inverse=True)
    return names, codes.astype(np.int64)
