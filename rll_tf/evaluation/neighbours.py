"""Exact nearest neighbours by Euclidean distance, a block of queries at a time.

The order is that of the squared distances Σ (x - y)², computed from the differences in float64. A matrix
product alone cannot give it: |x|² + |y|² - 2 x·y cancels for near-duplicates. Computing every difference
would be slow. So, for each block of queries:

1. A float64 product of the centred data gives every |y|² - 2 x·y, which orders the gallery as the distance
   does (|x|² is the row's constant). Centring leaves distances as they are and shrinks the norms, hence the
   error: with u = 2⁻⁵³ it is at most (d + 5) u (|x| + |y|)².
2. Whatever lies within twice that bound of the k-th smallest is kept, so no true neighbour is lost.
3. Where consecutive values lie closer than twice the bound, those pictures are ordered by their differences.

Hence the guarantee: the order does not depend on the block size, on the number of threads or on how BLAS
adds, near-duplicates are told apart down to the last bit of their numbers, and equal rows always tie.

Memory: a float64 copy of the data, and a few [block, gallery] arrays; never [n, n].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from rll_tf.evaluation.checks import check_embeddings

# A block's [block, gallery] float64 array holds about this many distances: 32 MiB. Larger is hardly faster.
DISTANCES_PER_BLOCK = 2**22
# Differences are computed for so many numbers at a time (8 MiB), however many pictures tie.
NUMBERS_PER_CHUNK = 2**20
# Far above float32's range; a sum of 10^8 squares of it still fits into float64.
LARGEST = 1e150


@dataclasses.dataclass(frozen=True, eq=False)
class RankedBlock:
    """The ranked lists of a block of b queries, end to end: m entries, in the order of `row`, then of `rank`.

    A list ends with whole ties: it holds its first k entries and whatever is exactly as far as the k-th.

    Args:
        queries: [b] indices of the queries.
        row: [m] which of the block's queries an entry belongs to, 0 to b - 1.
        column: [m] the neighbour's index in the gallery; among equal distances ascending.
        rank: [m] the entry's place in its list, from 0.
        tie_start: [m] the rank of the first entry that is exactly as far as this one.
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

    Without a gallery the neighbours are looked for among the embeddings themselves, and a query is left out
    of its own list by its index: a duplicate of it, at distance 0, stays. Of equally distant ones the smaller
    index comes first; the module's docstring says how exact that is.

    Args:
        embeddings: [n, d] real numbers.
        k: at least 1, at most the number of candidates: n - 1, or g with a gallery.
        gallery: [g, d]. Given, nothing is left out: it holds other pictures than the queries.
        block_size: queries at a time; None chooses one by the gallery's size. It does not change the result.

    Returns:
        [n, k] int64 indices, and [n, k] float64 distances.

    Raises:
        ValueError: k or block_size is out of range, or embeddings are not finite, [n, d], and equally wide.
    """
    search = Search(embeddings, gallery)
    if not 1 <= k <= search.candidates:
        raise ValueError(f"k must be 1 to the number of other pictures, {search.candidates}: got {k}")
    count = len(search.queries)
    indices = np.empty((count, k), np.int64)
    distances = np.empty((count, k))
    for block in search.blocks(np.full(count, k), block_size):
        first = block.rank < k
        columns = block.column[first]
        squares = search.squared_distances(block.queries[block.row[first]], columns)
        indices[block.queries] = columns.reshape(-1, k)
        distances[block.queries] = np.sqrt(squares).reshape(-1, k)
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
        largest = max(float(np.abs(part).max()) for part in (self.queries, self.gallery))
        if largest > LARGEST:
            raise ValueError(f"embeddings must be at most {LARGEST:g}, or squares overflow: got {largest:g}")
        self.candidates = len(self.gallery) - self.within
        self._mean = self.gallery.mean(axis=0, dtype=np.float64)
        self._centred = self.gallery - self._mean
        self._norms2 = np.einsum("ij,ij->i", self._centred, self._centred)
        self._kind, self._first = _kinds(self.gallery)

    def blocks(self, wanted: np.ndarray, block_size: int | None = None) -> Iterator[RankedBlock]:
        """Ranked lists of all queries, query q's of at least min(wanted[q], candidates) entries.

        Queries that want equally many share a block, so that one large class does not make all lists long.
        """
        if block_size is None:
            block_size = max(1, min(1024, DISTANCES_PER_BLOCK // len(self.gallery)))
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1: got {block_size}")
        wanted = np.minimum(wanted, self.candidates)
        order = np.argsort(wanted, kind="stable")
        order = order[wanted[order] > 0]
        for start in range(0, len(order), block_size):
            queries = order[start : start + block_size]
            yield self._ranked(queries, wanted[queries])

    def squared_distances(self, query: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Σ (x - y)² in float64 for m pairs: [m] query and [m] gallery indices."""
        squares = np.empty(len(query))
        chunk = max(1, NUMBERS_PER_CHUNK // self.gallery.shape[1])
        for start in range(0, len(query), chunk):
            part = slice(start, start + chunk)
            left = self.queries[query[part]].astype(np.float64)
            squares[part] = np.square(left - self.gallery[column[part]]).sum(axis=1)
        return squares

    def _ranked(self, queries: np.ndarray, wanted: np.ndarray) -> RankedBlock:
        centred = self._centred[queries] if self.within else self.queries[queries] - self._mean
        norms = np.sqrt(np.einsum("ij,ij->i", centred, centred)) + np.sqrt(self._norms2.max())
        # `eps` is 2u, and 16 for the bound's 5: room for the terms of second order.
        slack = 2 * (centred.shape[1] + 16) * np.finfo(np.float64).eps * norms**2
        values = centred @ self._centred.T
        values *= -2
        values += self._norms2
        if self.within:
            values[np.arange(len(queries)), queries] = np.inf
        most = int(wanted.max())
        limit = np.partition(values, most - 1, axis=1)[:, most - 1] + slack

        row, column = np.nonzero(values <= limit[:, None])  # row by row, columns ascending
        value = values[row, column]
        del values
        order = np.lexsort((value, row))
        row, column, value = row[order], column[order], value[order]
        close = (np.diff(value) <= slack[row[1:]]) & (row[1:] == row[:-1])
        begins = np.concatenate([[True], ~close])
        cluster = np.cumsum(begins)
        exact = np.zeros(len(row))
        doubtful = np.append(~begins[1:], False) | ~begins
        if doubtful.any():
            exact[doubtful] = self._exact(queries[row[doubtful]], column[doubtful])
            order = np.lexsort((column, exact, cluster))
            row, column, exact = row[order], column[order], exact[order]
            begins[1:] |= np.diff(exact) != 0

        position = np.arange(len(row))
        list_start = np.searchsorted(row, np.arange(len(queries)))[row]
        tie_start = np.maximum.accumulate(np.where(begins, position, 0)) - list_start
        kept = tie_start < wanted[row]
        return RankedBlock(queries, row[kept], column[kept], (position - list_start)[kept], tie_start[kept])

    def _exact(self, query: np.ndarray, column: np.ndarray) -> np.ndarray:
        """`squared_distances`, computed once for all pairs of equal rows: a collapsed model has many such."""
        if not self.within:
            return self.squared_distances(query, column)
        kinds = len(self._first)
        pair, inverse = np.unique(self._kind[query] * kinds + self._kind[column], return_inverse=True)
        return self.squared_distances(self._first[pair // kinds], self._first[pair % kinds])[inverse]


def _kinds(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are equal: [n] each row's kind, and [kinds] the first row of each."""
    rows = np.ascontiguousarray(array)
    whole = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    _, first, kind = np.unique(whole, return_index=True, return_inverse=True)
    return kind, first
