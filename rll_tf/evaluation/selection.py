"""Which queries to show, and which pairs to count: by a stated rule and a seed, never by eye."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from rll_tf.evaluation.checks import check_embeddings, check_labels
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

    The rule: pictures are shuffled by the seed. Half of the lists are of the first whose nearest other is of
    another class, half of the first whose nearest is of their own, at most one per class; where one sort runs
    out the other fills up. So failures are shown more often than they happen, but nothing is chosen by how it
    looks. Classes with one picture are left out unless there are no others.

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
    return _lists(search, codes, _pick(first_neighbours(search, codes), codes, count, seed), k)


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
    """Lists of the queries that fail by most, at most one per class, the worst first.

    A query fails by d(nearest of its class) - d(nearest of another class), where that is above 0; queries
    alone in their class cannot succeed and are left out. Where few queries fail there are fewer lists, or
    none. Arguments and errors as in `pick_ranked_lists`.
    """
    search, codes = _prepared(embeddings, labels, count, k)
    return _lists(search, codes, _hardest(first_neighbours(search, codes), codes, count), k)


@dataclasses.dataclass(frozen=True, eq=False)
class FirstNeighbours:
    """The nearest other of every query.

    Args:
        nearest: [n] its index.
        gap: [n] float32, d(nearest of its class) - d(nearest of another class); infinite where there is no
            other of its class, minus infinity where there is no other class.
    """

    nearest: np.ndarray
    gap: np.ndarray


def first_neighbours(search: Search, codes: np.ndarray) -> FirstNeighbours:
    """One pass over all pairs, in float32: what that can't tell apart may be in either order."""
    nearest, gap = np.empty(len(codes), np.int64), np.empty(len(codes), np.float32)
    infinite = np.float32(np.inf)
    for queries, squares in search.blocks(np.arange(len(codes))):
        is_right = codes[queries][:, None] == tf.constant(codes)
        right = tf.reduce_min(tf.where(is_right, squares, infinite), axis=1)
        wrong = tf.reduce_min(tf.where(is_right, infinite, squares), axis=1)
        right, wrong = (np.sqrt(np.maximum(each.numpy(), 0)) for each in (right, wrong))
        nearest[queries] = tf.argmin(squares, axis=1).numpy()
        gap[queries] = right - wrong
    return FirstNeighbours(nearest, gap)


def ranked_lists_of_a_report(
    embeddings: ArrayLike, labels: ArrayLike | Sequence[str], count: int, k: int, seed: int
) -> tuple[RankedLists, RankedLists, FirstNeighbours]:
    """What `pick_ranked_lists` and `hardest_ranked_lists` give, and what both are chosen by."""
    search, codes = _prepared(embeddings, labels, count, k)
    first = first_neighbours(search, codes)
    picked, hardest = _pick(first, codes, count, seed), _hardest(first, codes, count)
    return _lists(search, codes, picked, k), _lists(search, codes, hardest, k), first


def _pick(first: FirstNeighbours, codes: np.ndarray, count: int, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(len(codes))
    sizes = np.bincount(codes)
    if sizes.max() > 1:
        order = order[sizes[codes[order]] > 1]
    fails = first.gap[order] >= 0
    bad, good = (_one_a_class(order[part], codes) for part in (fails, ~fails))
    good = good[~np.isin(codes[good], codes[bad[: count // 2]])][: count - min(len(bad), count // 2)]
    bad = bad[~np.isin(codes[bad], codes[good])][: count - len(good)]
    return np.concatenate([good, bad])


def _hardest(first: FirstNeighbours, codes: np.ndarray, count: int) -> np.ndarray:
    order = np.argsort(-first.gap, kind="stable")
    gap = first.gap[order]
    return _one_a_class(order[(gap > 0) & np.isfinite(gap)], codes)[:count]


def _one_a_class(order: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Each class's first, in this order."""
    return order[np.sort(np.unique(codes[order], return_index=True)[1])]


def sample_distances(
    embeddings: ArrayLike, labels: ArrayLike | Sequence[str], pairs: int = 20_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of random pairs of one class, and of random pairs of two classes.

    Each of the possible pairs is equally likely, with replacement. Memory does not grow with n².

    Returns:
        Two [pairs] float64 arrays; one is empty where there is no such pair.
    """
    rows = check_embeddings(embeddings)
    _, codes = check_labels(labels, len(rows))
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
        difference = rows[order[one]].astype(np.float64) - rows[order[other]]
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
    others = np.arange(len(codes))
    exact = [search.exact(np.full(len(codes), query), others) for query in queries]
    distances = np.sqrt(np.reshape(exact, [len(queries), len(codes)]))
    distances[np.arange(len(queries)), queries] = np.inf
    everything = np.argsort(distances, axis=1, kind="stable")[:, : search.candidates]
    right = codes[everything] == codes[queries, None]
    first_correct = np.where(right.any(axis=1), right.argmax(axis=1) + 1, 0)
    neighbours = everything[:, :k]
    nearest = np.take_along_axis(distances, neighbours, axis=1)
    return RankedLists(queries, neighbours, nearest, right[:, :k], first_correct)
