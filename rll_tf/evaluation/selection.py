"""Which queries to show, and which pairs to count: by a stated rule and a seed, never by eye."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rll_tf.evaluation.checks import check_labels
from rll_tf.evaluation.neighbours import Search, nearest_neighbours


@dataclasses.dataclass(frozen=True, eq=False)
class RankedLists:
    """The nearest others of q queries.

    Args:
        queries: [q] indices of the queries.
        neighbours: [q, k] indices of their nearest others, nearest first.
        distances: [q, k] their distances.
        correct: [q, k] whether they are of the query's class.
        first_correct: [q] the rank, from 1, of the nearest one of the query's class; 0 where there is none.
    """

    queries: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray
    correct: np.ndarray
    first_correct: np.ndarray


def pick_ranked_lists(
    embeddings: ArrayLike, labels: ArrayLike | Sequence[str], count: int = 8, k: int = 8, seed: int = 0
) -> RankedLists:
    """Lists of good and of failing queries, half of each where there are enough, good ones first.

    The rule: classes are shuffled by the seed, each gives one picture drawn by the seed, and these are taken
    in that order until half of the lists have a right nearest neighbour and half a wrong one; where one sort
    runs out the other fills up. So failures are shown more often than they happen, but nothing is chosen by
    how it looks. Classes with one picture are left out unless there are no others.

    Args:
        embeddings: [n, d], n at least 2.
        labels: [n] integers or strings.
        count: how many lists; fewer where there are fewer classes.
        k: how many neighbours in each; fewer where there are fewer pictures.
        seed: of the draw.

    Raises:
        ValueError: count or k is below 1, or the input is not what `retrieval_metrics` takes.
    """
    search, codes = _prepared(embeddings, labels, count, k)
    rng = np.random.default_rng(seed)
    sizes = np.bincount(codes)
    classes = np.flatnonzero(sizes > 1) if sizes.max() > 1 else np.arange(len(sizes))
    starts = np.cumsum(sizes) - sizes
    drawn = np.argsort(codes, kind="stable")[
        [starts[c] + rng.integers(sizes[c]) for c in rng.permutation(classes)]
    ]
    is_right = np.zeros(len(codes), bool)
    for block in search.blocks(np.isin(np.arange(len(codes)), drawn).astype(np.int64)):
        nearest = block.column[block.rank == 0]
        is_right[block.queries] = codes[nearest] == codes[block.queries]
    good, bad = drawn[is_right[drawn]], drawn[~is_right[drawn]]
    from_good = min(len(good), max(count - count // 2, count - len(bad)))
    return _lists(search, codes, np.concatenate([good[:from_good], bad[: count - from_good]]), k)


def hardest_ranked_lists(
    embeddings: ArrayLike, labels: ArrayLike | Sequence[str], count: int = 6, k: int = 8
) -> RankedLists:
    """Lists of the queries that fail by most, at most one a class, the worst first.

    A query fails by d(nearest of its class) - d(nearest of another class), where that is above 0; queries
    alone in their class cannot succeed and are left out. Where few queries fail there are fewer lists, or
    none. Arguments and errors as in `pick_ranked_lists`.
    """
    search, codes = _prepared(embeddings, labels, count, k)
    others = np.bincount(codes)[codes] - 1
    right = np.full(len(codes), -np.inf)
    for members in np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1]):
        if len(members) > 1:
            right[members] = nearest_neighbours(search.queries[members], 1)[1][:, 0]
    wrong = np.full(len(codes), np.inf)
    for block in search.blocks(np.where(others > 0, others + 1, 0)):  # at least one of them is wrong
        is_wrong = codes[block.column] != codes[block.queries[block.row]]
        rows, first = np.unique(block.row[is_wrong], return_index=True)
        queries = block.queries[rows]
        wrong[queries] = np.sqrt(search.squared_distances(queries, block.column[is_wrong][first]))
    gap = right - wrong
    order = np.argsort(-gap, kind="stable")
    order = order[gap[order] > 0]
    _, worst = np.unique(codes[order], return_index=True)  # each class's first in this order
    return _lists(search, codes, order[np.sort(worst)[:count]], k)


def sample_distances(
    embeddings: ArrayLike, labels: ArrayLike | Sequence[str], pairs: int = 20_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of random pairs of one class, and of random pairs of two classes.

    Each of the possible pairs is equally likely, with replacement. Memory does not grow with n².

    Returns:
        Two [pairs] float64 arrays; one is empty where there is no such pair.
    """
    search = Search(embeddings)
    _, codes = check_labels(labels, len(search.queries))
    rng = np.random.default_rng(seed)
    order = np.argsort(codes, kind="stable")  # class by class; in it a class is one stretch
    size = np.bincount(codes)[codes[order]]
    start = (np.cumsum(np.bincount(codes)) - np.bincount(codes))[codes[order]]
    n, place = len(codes), np.arange(len(codes))
    samples = []
    for partners in (size - 1, n - size):
        if partners.sum() == 0:
            samples.append(np.empty(0))
            continue
        one = rng.choice(place, pairs, p=partners / partners.sum())
        step = rng.integers(0, partners[one])
        inside = start[one] + (one - start[one] + 1 + step) % size[one]
        outside = (start[one] + size[one] + step) % n
        other = inside if not samples else outside
        samples.append(np.sqrt(search.squared_distances(order[one], order[other])))
    return samples[0], samples[1]


def _prepared(
    embeddings: ArrayLike, labels: ArrayLike | Sequence[str], count: int, k: int
) -> tuple[Search, np.ndarray]:
    search = Search(embeddings)
    _, codes = check_labels(labels, len(search.queries))
    if count < 1 or k < 1:
        raise ValueError(f"count and k must be at least 1: got {count} and {k}")
    if not search.candidates:
        raise ValueError("ranked lists need at least 2 pictures: got 1")
    return search, codes


def _lists(search: Search, codes: np.ndarray, queries: np.ndarray, k: int) -> RankedLists:
    """The chosen queries' lists, in their order; a handful of queries, so they are ranked to the end."""
    k = min(k, search.candidates)
    wanted = np.zeros(len(codes), np.int64)
    wanted[queries] = search.candidates
    place = np.zeros(len(codes), np.int64)
    place[queries] = np.arange(len(queries))
    neighbours = np.zeros((len(queries), k), np.int64)
    first_correct = np.zeros(len(queries), np.int64)
    for block in search.blocks(wanted):
        table = block.column.reshape(len(block.queries), -1)
        correct = codes[table] == codes[block.queries, None]
        at = place[block.queries]
        neighbours[at] = table[:, :k]
        first_correct[at] = np.where(correct.any(axis=1), correct.argmax(axis=1) + 1, 0)
    squares = search.squared_distances(np.repeat(queries, k), neighbours.ravel())
    correct = codes[neighbours] == codes[queries, None]
    return RankedLists(queries, neighbours, np.sqrt(squares).reshape(-1, k), correct, first_correct)
