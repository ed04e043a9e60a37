"""Single entries of a shuffled range."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rll_tf.data import permutation
from rll_tf.data.permutation import shuffled


@pytest.fixture
def all_large(monkeypatch):
    """Treat every range as a large one."""
    monkeypatch.setattr(permutation, "SMALL", 0)


@settings(deadline=None, max_examples=50)
@given(st.integers(permutation.SMALL + 1, 100_000), st.integers(0, 10**12), st.integers(0, 10**6))
def test_a_large_range_is_permuted(count, seed, epoch):
    """Every number comes once, and single entries are those of the whole."""
    whole = shuffled(count, (seed, epoch), np.arange(count))
    assert np.array_equal(np.sort(whole), np.arange(count))
    some = np.array([0, count - 1, count // 3])
    np.testing.assert_array_equal(shuffled(count, (seed, epoch), some), whole[some])


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("count", [1, 2, 3, 17, 64, 65])
def test_the_bijection_holds_at_every_size(count):
    """Also where it is not used."""
    assert sorted(shuffled(count, (1, 2), np.arange(count))) == list(range(count))


def test_entries_of_a_large_range_are_spread_evenly():
    """Over many keys, the first entry falls into ten equal parts of the range about equally often."""
    firsts = [shuffled(50_000, (key,), np.array([0]))[0] for key in range(4000)]
    np.testing.assert_allclose(np.histogram(firsts, 10, (0, 50_000))[0] / 4000, 0.1, atol=0.02)


def test_neighbours_are_not_kept_together():
    """Differences of successive entries are as large as chance makes them, a third of the range."""
    entries = shuffled(50_000, (5,), np.arange(50_000))
    assert np.abs(np.diff(entries)).mean() == pytest.approx(50_000 / 3, rel=0.02)
    assert abs(np.corrcoef(entries[:-1], entries[1:])[0, 1]) < 0.02


def test_the_order_is_the_same_on_every_machine():
    """As NumPy 2.2.6 draws the keys."""
    assert shuffled(10**6, (7, 0, 3), np.arange(4)).tolist() == [196862, 390362, 668112, 879038]
