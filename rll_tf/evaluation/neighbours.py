"""Exact nearest neighbours by Euclidean distance, a block of queries at a time.

Squared distances are |x|² + |y|² - 2 x·y in float64, of data whose mean is subtracted: one matrix product a
block. Rounding leaves an error of about d·10⁻¹⁵ times |x|² + |x - y|² in them. Neighbours whose squared
distances differ by less than that tie; equal rows therefore always do, whatever the block size, the number
of threads or the order in which BLAS adds.

Memory: a float64 copy of the data, and a few [block, gallery] arrays; never [n, n].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from rll_tf.evaluation.checks import check_embeddings
from rll_tf.progress import progress

# A block's [block, gallery] float64 array holds about this many distances: 32 MiB. Larger is hardly faster.
DISTANCES_PER_BLOCK = 2**22


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
    """

    queries: np.ndarray
    row: np.ndarray
    column: np.ndarray
    rank: np.ndarray
    tie_start: np.ndarray


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
    for block in search.ranked(np.full(count, k), block_size):
        columns = block.column[block.rank < k].reshape(-1, k)
        queries = search.queries[block.queries].astype(np.float64)
        exact = np.stack([np.linalg.norm(queries - search.gallery[at], axis=1) for at in columns.T], axis=1)
        order = np.lexsort((columns, exact), axis=1)
        indices[block.queries] = np.take_along_axis(columns, order, axis=1)
        distances[block.queries] = np.take_along_axis(exact, order, axis=1)
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
                f"got {self.queries.shape[1]} and {self.gallery.shape[1]} numbers a row"
            )
        self.candidates = len(self.gallery) - self.within
        mean = self.gallery.mean(axis=0, dtype=np.float64)
        self._gallery = self.gallery - mean
        self._queries = self._gallery if gallery is None else self.queries - mean
        self._gallery_norms2 = np.einsum("ij,ij->i", self._gallery, self._gallery)
        self._query_norms2 = np.einsum("ij,ij->i", self._queries, self._queries)
        # 2 (d + 5) 2⁻⁵³ (|x| + |y|)² bounds the difference of two equal distances, and (|x| + |y|)² is at
        # most 8 (|x|² + |x - y|²); 16 in place of 5 leaves room for the terms of second order.
        self._rounding = 8 * (self.gallery.shape[1] + 16) * np.finfo(np.float64).eps

    def blocks(
        self, queries: np.ndarray, block_size: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """These queries' indices [b] and their squared distances [b, g], infinite to the query itself."""
        if block_size is None:
            block_size = max(1, min(1024, DISTANCES_PER_BLOCK // len(self.gallery)))
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1: got {block_size}")
        for start in progress(range(0, len(queries), block_size), "comparing embeddings"):
            block = queries[start : start + block_size]
            squares = -2 * self._queries[block] @ self._gallery.T
            squares += self._gallery_norms2
            squares += self._query_norms2[block, None]
            if self.within:
                squares[np.arange(len(block)), block] = np.inf
            yield block, squares

    def ranked(self, lengths: np.ndarray, block_size: int | None = None) -> Iterator[RankedBlock]:
        """Ranked lists of all queries, query q's of at least min(lengths[q], candidates) entries.

        Queries with lists of one length share a block, so that one large class does not make all lists long.
        """
        lengths = np.minimum(lengths, self.candidates)
        order = np.argsort(lengths, kind="stable")
        for queries, squares in self.blocks(order[lengths[order] > 0], block_size):
            yield self._rank(queries, squares, lengths[queries])

    def _rank(self, queries: np.ndarray, squares: np.ndarray, lengths: np.ndarray) -> RankedBlock:
        norms2 = self._query_norms2[queries]
        most = int(lengths.max())
        last = np.partition(squares, most - 1, axis=1)[:, most - 1]
        limit = last + self._rounding * (norms2 + last)
        row, column = np.nonzero(squares <= limit[:, None])  # row by row, columns ascending
        square = squares[row, column]
        order = np.lexsort((square, row))
        row, column, square = row[order], column[order], square[order]

        begins = np.ones(len(row), bool)  # whether an entry is farther than the one before it
        begins[1:] = np.diff(square) > self._rounding * (norms2[row[1:]] + square[1:])
        begins[1:] |= np.diff(row) != 0
        column = column[np.lexsort((column, np.cumsum(begins)))]
        position = np.arange(len(row))
        list_start = np.searchsorted(row, np.arange(len(queries)))[row]
        tie_start = np.maximum.accumulate(np.where(begins, position, 0)) - list_start
        kept = tie_start < lengths[row]
        return RankedBlock(queries, row[kept], column[kept], (position - list_start)[kept], tie_start[kept])
