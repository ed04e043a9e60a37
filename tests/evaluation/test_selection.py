"""Which queries are shown, and which pairs are counted."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from rll_tf.evaluation import hardest_ranked_lists, pick_ranked_lists
from rll_tf.evaluation.selection import draw_queries, ranked_lists, sample_distances


def pictures(n=90, classes=12, noise=0.9):
    """Overlapping classes of unequal sizes, one of them with one picture."""
    rng = np.random.default_rng(8)
    labels = np.append(rng.integers(0, classes, n - 1), classes)
    return (rng.normal(size=(classes + 1, 4))[labels] + noise * rng.normal(size=(n, 4))).astype(
        np.float32
    ), labels


def ranked(embeddings, labels, i):
    """The others of query i, nearest first, by a sort."""
    return sorted(
        (math.dist(embeddings[i].tolist(), embeddings[j].tolist()), j) for j in range(len(labels)) if j != i
    )


def assert_lists_are_true(lists, embeddings, labels, k):
    """Neighbours, distances, marks and the first right rank are those of a sort."""
    for at, i in enumerate(lists.queries):
        others = ranked(embeddings, labels, i)
        assert lists.neighbours[at].tolist() == [j for _, j in others[:k]]
        np.testing.assert_allclose(lists.distances[at], [d for d, _ in others[:k]], rtol=1e-12)
        right = [labels[j] == labels[i] for _, j in others]
        assert lists.correct[at].tolist() == right[:k]
        assert lists.first_correct[at] == right.index(True) + 1


@pytest.mark.parametrize("seed", range(3))
def test_half_begin_right_and_half_wrong(seed):
    """Six of six classes, the good ones first, the same for the same seed, and no class of one picture."""
    embeddings, labels = pictures()
    lists = pick_ranked_lists(embeddings, labels, count=6, k=5, seed=seed)
    assert lists.correct[:, 0].tolist() == [True] * 3 + [False] * 3
    assert len(set(labels[lists.queries])) == 6
    assert 12 not in labels[lists.queries]
    assert_lists_are_true(lists, embeddings, labels, 5)
    again = pick_ranked_lists(embeddings, labels, count=6, k=5, seed=seed)
    np.testing.assert_array_equal(again.queries, lists.queries)


def test_different_seeds_draw_different_queries():
    """The choice is a draw, not a ranking."""
    draws = {tuple(pick_ranked_lists(*pictures(), seed=seed).queries) for seed in range(5)}
    assert len(draws) == 5


def test_where_one_sort_runs_out_the_other_fills_up():
    """A perfect model has no failing query to show, and three classes give three lists."""
    labels = np.repeat(["a", "b", "c"], 4)
    embeddings = np.repeat(np.eye(3), 4, axis=0) + 0.01 * np.random.default_rng(0).normal(size=(12, 3))
    lists = pick_ranked_lists(embeddings, labels, count=8, k=50)
    assert lists.correct[:, :3].all()
    assert lists.neighbours.shape == (3, 11)
    assert len(hardest_ranked_lists(embeddings, labels).queries) == 0


def test_classes_of_one_picture_only():
    """There is nothing right to find; the lists are drawn all the same."""
    lists = pick_ranked_lists(np.arange(3.0)[:, None], [7, 8, 9], count=2, k=2)
    assert not lists.correct.any()
    assert lists.first_correct.tolist() == [0, 0]


def test_the_hardest_fail_by_most():
    """The largest d(nearest right) - d(nearest wrong), one per class, the worst first."""
    embeddings, labels = pictures()
    gaps = {}
    for i in range(len(labels)):
        others = ranked(embeddings, labels, i)
        right = [d for d, j in others if labels[j] == labels[i]]
        wrong = [d for d, j in others if labels[j] != labels[i]]
        if right and right[0] > wrong[0]:
            gaps[i] = right[0] - wrong[0]
    expected = []
    for i in sorted(gaps, key=lambda i: -gaps[i]):
        if labels[i] not in labels[expected]:
            expected.append(i)
    lists = hardest_ranked_lists(embeddings, labels, count=10, k=4)
    assert lists.queries.tolist() == expected[:10]
    assert (
        lists.queries.tolist() != sorted(gaps, key=lambda i: -gaps[i])[:10]
    )  # one class fails more than once
    assert_lists_are_true(lists, embeddings, labels, 4)


def test_sampled_distances_are_those_of_the_right_pairs():
    """Every pair of one class, and of two classes, appears about equally often."""
    values = np.array([0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0])  # every pair has its own distance
    labels = [1, 0, 1, 0, 1, 2]
    same, different = sample_distances(values[:, None], labels, pairs=11_000, seed=1)
    pairs = {True: [], False: []}
    for i, j in itertools.combinations(range(6), 2):
        pairs[labels[i] == labels[j]].append(abs(values[i] - values[j]))
    for sample, expected in ((same, pairs[True]), (different, pairs[False])):
        found, counts = np.unique(sample, return_counts=True)
        assert found.tolist() == sorted(expected)
        np.testing.assert_allclose(counts, len(sample) / len(expected), rtol=0.2)


def test_where_there_are_no_such_pairs_the_sample_is_empty():
    """One class has no pair of two, single pictures have no pair of one."""
    assert [len(part) for part in sample_distances(np.eye(3), [1, 1, 1], pairs=9)] == [9, 0]
    assert [len(part) for part in sample_distances(np.eye(3), [1, 2, 3], pairs=9)] == [0, 9]


def test_memory_does_not_grow_with_the_square():
    """4,000 pictures take far less than [n, n] numbers to choose from and to sample."""
    n = 4000
    embeddings, labels = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32), np.arange(n) % 40
    tracemalloc.start()
    try:
        sample_distances(embeddings, labels, pairs=2000)
        pick_ranked_lists(embeddings, labels)
        sampled_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sampled_bytes < n * n * 4 / 4


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (1, {}, r"at least 2 pictures: got 1"),
        (3, {"k": 0}, r"at least 1: got 8 and 0"),
        (3, {"count": 0}, r"got 0"),
    ],
)
def test_bad_arguments_are_named(n, options, message):
    """An error says what must hold and what was received."""
    with pytest.raises(ValueError, match=message):
        pick_ranked_lists(np.eye(3)[:n], [0, 0, 0][:n], **options)


def test_drawn_queries_are_the_same_for_any_embeddings():
    """One picture each of classes with two or more; their lists are those of `pick_ranked_lists`' kind."""
    labels = np.array([0, 0, 1, 2, 2, 2, 3, 3])
    queries = draw_queries(labels, 3, seed=1)
    assert queries.tolist() == draw_queries(labels.astype(str), 3, seed=1).tolist()
    assert len(set(labels[queries])) == 3
    assert 1 not in labels[draw_queries(labels, 9)]
    lists = ranked_lists(np.arange(8.0)[:, None], labels, np.array([0, 5]), 2)
    assert lists.neighbours.tolist() == [[1, 2], [4, 6]]
    assert lists.correct.tolist() == [[True, False], [True, False]]
