"""Exact nearest neighbours by Euclidean distance, a block of queries at a time.

Squared distances |x|² + |y|² - 2 x·y of data whose mean is subtracted come from one float32 matrix product
a block, by TensorFlow, hence on a GPU where there is one. Their rounding is bounded (Higham, "Accuracy and
Stability of Numerical Algorithms", section 3.1), and what it leaves open is computed again in float64 from
the differences. So the order is float64's; the closer together the distances are, the more such pairs there
are and the longer it takes.

Distances that float64 can't tell apart tie. Equal rows always do, whatever the block size, the number of
threads or the order in which products are added.

Memory: two float32 copies of the data, and a few [block, gallery] arrays; never [n, n].
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from rll_tf.evaluation.checks import check_embeddings
from rll_tf.progress import progress

# A block's [block, gallery] float32 array holds about this many squared distances: 128 MiB.
DISTANCES_PER_BLOCK = 2**25
# And differences of pairs hold about so many float64 numbers at a time: 4 MiB.
DIFFERENCES_AT_ONCE = 2**19


@dataclasses.dataclass(frozen=True, eq=False)
class RankedBlock:
    """The ranked lists of a block of b queries, end to end: m entries, in the order of `row`, then of `rank`.

    A list ends with a whole tie: it holds its first k entries and whatever is as far as the k-th.

    Args:
        queries: [b] indices of the queries.
        row: [m] which of the block's queries an entry belongs to, 0 to b - 1.
        column: [m] the neighbour's index in the gallery; ascending within a tie.
        rank: [m] the entry's position in its list, from 0.
        tie_start: [m] the rank of the first entry that ties with this one.
        square: [m] float64, the squared distance.
    """

    queries: np.ndarray
    row: np.ndarray
    column: np.ndarray
    rank: np.ndarray
    tie_start: np.ndarray
    square: np.ndarray


def nearest_neighbours(
    embeddings: ArrayLike, k: int, *, gallery: ArrayLike | None = None, block_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest others of every row of `embeddings`, nearest first.

    Without a gallery the neighbours are found among the embeddings themselves, and a query is left out
    of its own list by its index: a duplicate of it, at distance 0, stays. Of equally distant ones the smaller
    index comes first.

    Args:
        embeddings: [n, d] real numbers.
        k: at least 1, at most the number of candidates: n - 1, or g with a gallery.
        gallery: [g, d]. Given, nothing is left out: it holds other pictures than the queries.
        block_size: queries at a time; None chooses one by the gallery's size. It does not change the result.

    Returns:
        [n, k] int64 indices, and [n, k] float64 distances, computed from the differences.

    Raises:
        ValueError: k or block_size is out of range, or embeddings are not finite, [n, d], and equally wide.
    """
    search = Search(embeddings, gallery)
    if not 1 <= k <= search.candidates:
        raise ValueError(f"k must be 1 to the number of other pictures, {search.candidates}: got {k}")
    count = len(search.queries)
    indices = np.empty((count, k), np.int64)
    distances = np.empty((count, k))
    for queries, squares in search.blocks(np.arange(count), block_size):
        block = search.rank(queries, squares, np.full(len(queries), k))
        kept = block.rank < k
        columns, exact = block.column[kept].reshape(-1, k), np.sqrt(block.square[kept]).reshape(-1, k)
        order = np.lexsort((columns, exact), axis=1)
        indices[queries] = np.take_along_axis(columns, order, axis=1)
        distances[queries] = np.take_along_axis(exact, order, axis=1)
    return indices, distances


class Search:
    """Queries and a gallery, prepared once.

    Args:
        embeddings: [n, d] queries.
        gallery: [g, d], or None for the queries themselves, each without itself.
    """

    def __init__(self, embeddings: ArrayLike, gallery: ArrayLike | None = None) -> None:
        self.queries = check_embeddings(embeddings)
        self.within = gallery is None
        self.gallery = self.queries if gallery is None else check_embeddings(gallery, "gallery")
        if self.gallery.shape[1] != self.queries.shape[1]:
            raise ValueError(
                "queries and gallery must be equally wide: "
                f"got {self.queries.shape[1]} and {self.gallery.shape[1]} numbers per row"
            )
        self.candidates = len(self.gallery) - self.within
        mean = self.gallery.mean(axis=0, dtype=np.float64)
        self._gallery, self._gallery_norms2 = _centred(self.gallery, mean)
        self._queries, self._query_norms2 = (
            (self._gallery, self._gallery_norms2) if self.within else _centred(self.queries, mean)
        )

    def blocks(
        self, queries: np.ndarray, block_size: int | None = None
    ) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
        """These queries' indices [b] and their squared distances [b, g], infinite to the query itself.

        The distances are float32 and wrong by at most `rounding`.
        """
        if block_size is None:
            block_size = max(1, min(1024, DISTANCES_PER_BLOCK // len(self.gallery)))
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1: got {block_size}")
        for start in progress(range(0, len(queries), block_size), "comparing embeddings"):
            block = queries[start : start + block_size]
            itself = block if self.within else block[:0]
            with _full_float32():
                squares = _squares(
                    block, itself, self._queries, self._query_norms2, self._gallery, self._gallery_norms2
                )
            yield block, squares

    def rounding(self, queries: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """[b] how wrong a squared distance up to `squares` [b] of these queries may be in `blocks`.

        d/2 2⁻²⁴ (|x| + |y|)² bounds the product's rounding; 8 in place of 0 leaves room for the data's, the
        norms' and the sums' own and for terms of second order. |y| is at most |x| + |x - y|.
        """
        reach = 2 * np.sqrt(self._query_norms2.numpy()[queries]) + np.sqrt(np.maximum(squares, 0))
        return (self.gallery.shape[1] / 4 + 8) * np.finfo(np.float32).eps * reach.astype(np.float64) ** 2

    def exact(self, queries: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """[m] squared distances in float64, of m queries and as many of the gallery."""
        found = np.empty(len(queries))
        pairs = max(1, DIFFERENCES_AT_ONCE // self.gallery.shape[1])
        for start in range(0, len(queries), pairs):
            part = slice(start, start + pairs)
            difference = self.queries[queries[part]].astype(np.float64)
            difference -= self.gallery[columns[part]]
            found[part] = np.einsum("ij,ij->i", difference, difference)
        return found

    @property
    def tie(self) -> float:
        """Squared distances that differ by less than this share tie: float64's rounding."""
        return (self.gallery.shape[1] + 8) * float(np.finfo(np.float64).eps)

    def rank(self, queries: np.ndarray, squares: tf.Tensor, lengths: np.ndarray) -> RankedBlock:
        """The ranked lists of one of `blocks`, query q's of at least min(lengths[q], candidates) entries."""
        lengths = np.minimum(lengths, self.candidates)
        nearest = -tf.math.top_k(-squares, int(lengths.max())).values.numpy().astype(np.float64)
        last = np.take_along_axis(nearest, np.maximum(lengths - 1, 0)[:, None], axis=1)[:, 0]
        limit = last + 2 * self.rounding(queries, last)
        row, column = where(squares <= limit[:, None].astype(np.float32))
        square = self.exact(queries[row], column)
        order = np.lexsort((column, square, row))
        row, column, square = row[order], column[order], square[order]

        begins = np.ones(len(row), bool)  # whether an entry is farther than the one before it
        begins[1:] = (np.diff(square) > self.tie * square[1:]) | (np.diff(row) != 0)
        position = np.arange(len(row))
        list_start = np.searchsorted(row, np.arange(len(queries)))[row]
        tie_start = np.maximum.accumulate(np.where(begins, position, 0)) - list_start
        kept = tie_start < lengths[row]
        rank = (position - list_start)[kept]
        return RankedBlock(queries, row[kept], column[kept], rank, tie_start[kept], square[kept])


def _centred(rows: np.ndarray, mean: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """[n, d] rows less the mean, in float32, and their squared norms [n]."""
    centred = np.empty(rows.shape, np.float32)
    np.subtract(rows, mean, out=centred, casting="unsafe")
    norms2 = np.einsum("ij,ij->i", centred, centred, dtype=np.float64)
    return tf.constant(centred), tf.constant(norms2, tf.float32)


_INDICES, _NORMS2, _ROWS = (
    tf.TensorSpec(shape, dtype)
    for shape, dtype in (([None], tf.int64), ([None], tf.float32), ([None, None], tf.float32))
)


@tf.function(input_signature=[_INDICES, _INDICES, _ROWS, _NORMS2, _ROWS, _NORMS2])
def _squares(
    block: tf.Tensor,
    itself: tf.Tensor,
    queries: tf.Tensor,
    query_norms2: tf.Tensor,
    gallery: tf.Tensor,
    gallery_norms2: tf.Tensor,
) -> tf.Tensor:
    products = tf.matmul(-2 * tf.gather(queries, block), gallery, transpose_b=True)
    squares = products + gallery_norms2 + tf.gather(query_norms2, block)[:, None]
    at = tf.stack([tf.range(tf.size(itself, itself.dtype)), itself], axis=1)
    return tf.tensor_scatter_nd_update(squares, at, tf.fill(tf.shape(itself), np.float32(np.inf)))


def where(mask: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns where a mask [b, g] is set, row by row, columns ascending."""
    row, column = tf.where(mask).numpy().T
    return row, column


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Without TensorFloat-32, which GPUs round products to and which has 10 bits."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
