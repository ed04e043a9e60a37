"""A gallery in fewer bits, and what accuracy that costs."""

from __future__ import annotations

import numpy as np

from rll_tf.evaluation import nearest_neighbours
from serving.gallery import without_own

PRECISIONS = ("float32", "float16", "int8")
# The loss is measured on at most so many queries, spread over the gallery.
QUERIES = 1000


def reduce_precision(vectors: np.ndarray, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [n, d] float32 as they are stored, and the [n] float32 factors that restore them.

    `int8` spreads each row over -127 to 127; its factor gives the restored row unit norm again.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"a gallery's precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if precision != "int8":
        return vectors.astype(precision), np.ones(len(vectors), np.float32)
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    stored = np.rint(vectors * (127 / largest)).astype(np.int8)
    squares = np.einsum("ij,ij->i", stored, stored, dtype=np.float32)  # whole numbers below 2²⁴·d
    return stored, (1 / np.sqrt(squares)).astype(np.float32)


def restore(stored: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The vectors that are searched: [n, d] float32."""
    return stored.astype(np.float32) * factors[:, np.newaxis]


def accuracy_lost(
    vectors: np.ndarray, labels: np.ndarray, restored: np.ndarray, top: int
) -> dict[str, float] | None:
    """What searching `restored` instead of `vectors` changes, for queries in full precision.

    The queries are rows of the gallery, at most `QUERIES`, each searched for among all others.

    Returns:
        `queries`; `top_1_changed` and `top_k_changed`, the shares of nearest and of `k` nearest neighbours
        that are others than before; `k`; and, where a query's class has another picture, `recall@1_before`
        and `recall@1_after`. None where there is one row, hence no other.
    """
    count = len(vectors)
    if count < 2:
        return None
    rows = np.unique(np.linspace(0, count - 1, min(count, QUERIES)).astype(np.int64))
    k = min(top, count - 1)
    before, after = (
        without_own(nearest_neighbours(vectors[rows], k + 1, gallery=gallery)[0], rows)
        for gallery in (vectors, restored)
    )
    kept = [np.isin(old, new).sum() for old, new in zip(before, after, strict=True)]
    lost = {
        "queries": len(rows),
        "k": k,
        "top_1_changed": float(np.mean(before[:, 0] != after[:, 0])),
        "top_k_changed": float(1 - np.sum(kept) / (len(rows) * k)),
    }
    has_another = np.bincount(labels)[labels[rows]] > 1
    if has_another.any():
        queries = rows[has_another]
        for when, found in (("before", before), ("after", after)):
            hits = labels[found[has_another, 0]] == labels[queries]
            lost[f"recall@1_{when}"] = float(np.mean(hits))
    return lost
