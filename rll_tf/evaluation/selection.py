"""Which queries to show, and which pairs to count: by a stated rule and a seed, never by eye."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from rll_tf.evaluation.checks import check_labels
from rll_tf.evaluation.neighbours import Search


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
    by_class = np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])
    drawn = np.array([rng.choice(by_class[c]) for c in rng.permutation(classes)])
    nearest = np.concatenate([squares.argmin(axis=1) for _, squares in search.blocks(drawn)])
    is_right = codes[nearest] == codes[drawn]
    good, bad = drawn[is_right], drawn[~is_right]
    from_good = min(len(good), max(count - count // 2, count - len(bad)))
    return _lists(search, codes, np.concatenate([good[:from_good], bad[: count - from_good]]), k)


def draw_queries(labels: ArrayLike | Sequence[str], count: int = 6, seed: int = 0) -> np.ndarray:
    """The indices of one picture each of `count` classes, drawn by the seed alone, whatever the embeddings.

    Classes with one picture are left out.
    """
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    classes = np.flatnonzero(np.bincount(codes) > 1)
    return np.array([rng.choice(np.flatnonzero(codes == c)) for c in rng.permutation(classes)[:count]])


def ranked_lists(
    embeddings: ArrayLike, labels: ArrayLike | Sequence[str], queries: np.ndarray, k: int = 8
) -> RankedLists:
    """The lists of these queries. Arguments and errors as in `pick_ranked_lists`."""
    search, codes = _prepared(embeddings, labels, len(queries), k)
    return _lists(search, codes, queries, k)


def hardest_ranked_lists(
    embeddings: ArrayLike, labels: ArrayLike | Sequence[str], count: int = 6, k: int = 8
) -> RankedLists:
    """Lists of the queries that fail by most, at most one a class, the worst first.

    A query fails by d(nearest of its class) - d(nearest of another class), where that is above 0; queries
    alone in their class cannot succeed and are left out. Where few queries fail there are fewer lists, or
    none. Arguments and errors as in `pick_ranked_lists`.
    """
    search, codes = _prepared(embeddings, labels, count, k)
    gap = np.empty(len(codes))
    for queries, squares in search.blocks(np.arange(len(codes))):
        distances = np.sqrt(np.maximum(squares, 0))
        is_right = codes[queries, None] == codes
        right = np.where(is_right, distances, np.inf).min(axis=1)
        wrong = np.where(is_right, np.inf, distances).min(axis=1)
        gap[queries] = np.where(np.isinf(right), 0.0, right) - wrong
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
    n = len(codes)
    order = np.argsort(codes, kind="stable")  # class by class; in it a class is one stretch
    sizes = np.bincount(codes)
    size = sizes[codes[order]]
    start = (np.cumsum(sizes) - sizes)[codes[order]]

    def partner_inside(one: np.ndarray, step: np.ndarray) -> np.ndarray:
        return start[one] + (one - start[one] + 1 + step) % size[one]

    def partner_outside(one: np.ndarray, step: np.ndarray) -> np.ndarray:
        return (start[one] + size[one] + step) % n

    samples = []
    for partners, partner in ((size - 1, partner_inside), (n - size, partner_outside)):
        if partners.sum() == 0:
            samples.append(np.empty(0))
            continue
        one = rng.choice(n, pairs, p=partners / partners.sum())
        other = partner(one, rng.integers(0, partners[one]))
        difference = search.queries[order[one]].astype(np.float64) - search.queries[order[other]]
        samples.append(np.linalg.norm(difference, axis=1))
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
    """The chosen queries' lists, in their order; a handful of queries, so every distance is computed."""
    distances = cdist(search.queries[queries], search.gallery)
    distances[np.arange(len(queries)), queries] = np.inf
    everything = np.argsort(distances, axis=1, kind="stable")[:, : search.candidates]
    right = codes[everything] == codes[queries, None]
    first_correct = np.where(right.any(axis=1), right.argmax(axis=1) + 1, 0)
    neighbours = everything[:, :k]
    nearest = np.take_along_axis(distances, neighbours, axis=1)
    return RankedLists(queries, neighbours, nearest, right[:, :k], first_correct)
