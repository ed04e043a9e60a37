"""Nearest neighbours: exact order, whatever the blocks, the duplicates and the ties."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rll_tf.evaluation import nearest_neighbours


def slow_neighbours(embeddings, k):
    """Sort every other row by distance, then by index, with Python's own arithmetic."""
    lists = []
    for i, query in enumerate(embeddings.tolist()):
        others = [(math.dist(query, row), j) for j, row in enumerate(embeddings.tolist()) if j != i]
        lists.append(sorted(others)[:k])
    return lists


@given(
    n=st.integers(2, 25), d=st.integers(1, 6), block_size=st.integers(1, 30), seed=st.integers(0, 999),
    whole=st.booleans(),
)  # fmt: skip
@settings(max_examples=60)
def test_agrees_with_a_double_loop(n, d, block_size, seed, whole):
    """Order and distances are those of a sort, ties on a lattice included."""
    rng = np.random.default_rng(seed)
    embeddings = rng.integers(0, 3, (n, d)) if whole else rng.normal(2, 5, (n, d)).astype(np.float32)
    k = int(rng.integers(1, n))
    indices, distances = nearest_neighbours(embeddings, k, block_size=block_size)
    expected = slow_neighbours(embeddings, k)
    assert indices.tolist() == [[j for _, j in row] for row in expected]
    np.testing.assert_allclose(distances, [[d for d, _ in row] for row in expected], rtol=1e-12)


def test_the_query_is_excluded_by_index_not_by_nearness():
    """A duplicate at distance 0 is a neighbour, and no query ever finds itself."""
    embeddings = np.array([[1.0, 2.0], [5.0, 5.0], [1.0, 2.0], [1.0, 2.0]], np.float32)
    indices, distances = nearest_neighbours(embeddings, 3)
    assert indices.tolist() == [[2, 3, 1], [0, 2, 3], [0, 3, 1], [0, 2, 1]]
    assert distances[0].tolist() == [0.0, 0.0, 5.0]


def test_equal_rows_tie_and_near_ones_are_ordered_far_from_the_origin():
    """A float32 product would see only noise here: distances of 1/64 between vectors of norm 8,000."""
    rng = np.random.default_rng(3)
    base = (1000 + rng.normal(size=64)).astype(np.float32)
    steps = rng.permutation(40) // 2  # every row is there twice
    embeddings = np.tile(base, (40, 1))
    embeddings[:, 7] = 1000 + steps / 64
    embeddings = np.concatenate([embeddings, np.tile(-base, (40, 1))])  # so that the mean is not among them
    indices, distances = nearest_neighbours(embeddings, 39)
    for i in range(40):
        others = sorted((abs(int(steps[j]) - int(steps[i])), j) for j in range(40) if j != i)
        assert indices[i].tolist() == [j for _, j in others]
        assert distances[i, 0] == 0


def test_an_outlier_does_not_blur_the_order():
    """One row a million times longer than the rest leaves their order exact."""
    rng = np.random.default_rng(4)
    embeddings = rng.normal(size=(60, 8)).astype(np.float32)
    embeddings[17] *= 1e6
    indices, _ = nearest_neighbours(embeddings, 59, block_size=7)
    assert indices.tolist() == [[j for _, j in row] for row in slow_neighbours(embeddings, 59)]


@pytest.mark.parametrize("block_size", [1, 7, 100, 1000])
def test_the_block_size_does_not_change_the_result(block_size):
    """Equal to the last bit for blocks that divide n, that do not, and that exceed it."""
    rng = np.random.default_rng(5)
    embeddings = rng.normal(size=(300, 33)).astype(np.float32)
    embeddings[100:120] = embeddings[40]
    expected = nearest_neighbours(embeddings, 25)
    got = nearest_neighbours(embeddings, 25, block_size=block_size)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


def test_a_gallery_is_searched_whole():
    """With a separate gallery nothing is excluded, not even a picture at distance 0 with the same index."""
    queries = np.array([[0.0, 0.0], [9.0, 9.0]], np.float32)
    gallery = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0]], np.float32)
    indices, distances = nearest_neighbours(queries, 2, gallery=gallery, block_size=1)
    assert indices.tolist() == [[0, 1], [2, 1]]
    np.testing.assert_allclose(distances, [[0, 1], [0, math.hypot(9, 8)]])


def test_half_precision_is_computed_in_full():
    """float16 rows are compared as the numbers they hold, not in float16 arithmetic."""
    embeddings = (100 + np.random.default_rng(6).normal(size=(50, 16))).astype(np.float16)
    got = nearest_neighbours(embeddings, 10)
    expected = nearest_neighbours(embeddings.astype(np.float64), 10)
    np.testing.assert_array_equal(got[0], expected[0])


@pytest.mark.parametrize(("n", "block_size", "collapsed"), [(4000, 256, False), (2000, 16, True)])
def test_memory_is_bounded_by_the_block(n, block_size, collapsed):
    """The peak stays below half of a float32 [n, n], even where all pictures tie."""
    embeddings = np.random.default_rng(7).normal(size=(n, 8)).astype(np.float32)
    if collapsed:
        embeddings[:] = 1
    tracemalloc.start()
    try:
        nearest_neighbours(embeddings, 5, block_size=block_size)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < n * n * 4 / 2


@pytest.mark.parametrize(
    ("embeddings", "k", "options", "message"),
    [
        (np.ones((3, 2)), 3, {}, r"k must be 1 to the number of other pictures, 2: got 3"),
        (np.ones((3, 2)), 0, {}, r"k must be 1 to .*: got 0"),
        (np.ones((3, 2)), 1, {"block_size": 0}, r"block_size must be at least 1: got 0"),
        (np.ones((3, 2)), 1, {"gallery": np.ones((3, 4))}, r"equally wide: got 2 and 4"),
        (np.ones((3, 2)), 1, {"gallery": [[1.0, math.inf]]}, r"gallery must be finite: row 0 holds inf"),
    ],
)
def test_bad_arguments_are_named(embeddings, k, options, message):
    """An error says what must hold and what was received."""
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(embeddings, k, **options)
