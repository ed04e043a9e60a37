"""The C×K sampler."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rll_tf.data import class_balanced_batches


@st.composite
def samplers(draw):
    """Labels in random order with unequal classes, and a sampler whose C need not divide their number."""
    sizes = draw(st.lists(st.one_of(st.integers(1, 12), st.integers(1, 200)), min_size=1, max_size=15))
    ids = draw(st.lists(st.integers(-5, 10**12), min_size=len(sizes), max_size=len(sizes), unique=True))
    labels = np.repeat(ids, sizes)
    np.random.default_rng(draw(st.integers(0, 99))).shuffle(labels)
    batches = class_balanced_batches(
        labels, draw(st.integers(1, len(sizes))), draw(st.integers(1, 6)), draw(st.integers(0, 9))
    )
    return labels, batches


@given(samplers())
def test_every_batch_holds_c_distinct_classes_of_k_pictures_each(case):
    """Over three epochs, a batch is C runs of K pictures, each run of one class, no class twice."""
    labels, batches = case
    for indices in itertools.islice(batches, 3 * batches.batches_per_epoch):
        runs = labels[indices].reshape(batches.classes_per_batch, batches.images_per_class)
        assert (runs == runs[:, :1]).all()
        assert len(set(runs[:, 0])) == batches.classes_per_batch


@given(samplers())
def test_an_epoch_shows_each_class_at_most_once_and_drops_the_remainder(case):
    """An epoch is as many whole batches as the classes make, and repeats no class."""
    labels, batches = case
    classes = len(set(labels))
    assert batches.batches_per_epoch == classes // batches.classes_per_batch
    for epoch in range(3):
        first = epoch * batches.batches_per_epoch
        shown = [batches[first + i] for i in range(batches.batches_per_epoch)]
        firsts = [label for indices in shown for label in labels[indices][:: batches.images_per_class]]
        assert len(firsts) == len(set(firsts))


@given(samplers())
def test_a_class_shows_all_its_pictures_before_any_repeats(case):
    """K pictures are distinct where the class has K; otherwise counts differ by at most one."""
    labels, batches = case
    for indices in itertools.islice(batches, 3 * batches.batches_per_epoch):
        for run in indices.reshape(-1, batches.images_per_class):
            shown, times = np.unique(run, return_counts=True)
            size = (labels == labels[run[0]]).sum()
            assert len(shown) == min(size, batches.images_per_class)
            assert times.max() - times.min() <= 1


@given(samplers(), st.integers(0, 40))
def test_a_restart_at_any_step_gives_the_uninterrupted_order(case, step):
    """A batch is the same whether or not the steps before were taken."""
    _, batches = case
    restarted = [batches[step + i] for i in range(3)]
    through = list(itertools.islice(batches, step + 3))[step:]
    np.testing.assert_array_equal(through, restarted)


@given(samplers(), st.integers(1, 4), st.integers(0, 30))
def test_workers_parts_side_by_side_are_the_single_workers_batch(case, workers, step):
    """So together they keep the invariant; where workers do not divide C they are refused."""
    labels, whole = case
    arguments = labels, whole.classes_per_batch, whole.images_per_class, whole.seed
    if whole.classes_per_batch % workers:
        with pytest.raises(ValueError, match=rf"a multiple of the number of workers \({workers}\)"):
            class_balanced_batches(*arguments, (0, workers))
        return
    parts = [class_balanced_batches(*arguments, (index, workers)) for index in range(workers)]
    assert {len(part[step]) for part in parts} == {part.batch_size for part in parts}
    np.testing.assert_array_equal(np.concatenate([part[step] for part in parts]), whole[step])
    assert [part.first for part in parts] == [index * whole.batch_size // workers for index in range(workers)]


def test_the_seed_decides_the_order_and_epochs_differ():
    """Equal seeds give equal batches, other seeds and later epochs give others."""
    labels = np.arange(200) // 4
    first, same, other = (class_balanced_batches(labels, 10, 2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[7], same[7])
    assert not np.array_equal(first[7], other[7])
    epochs = [np.concatenate([first[5 * epoch + i] for i in range(5)]) for epoch in range(3)]
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


def test_the_order_is_the_same_on_every_machine():
    """Batch 3 of a fixed case, as NumPy 2.2.6's PCG64 draws it."""
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])
    assert class_balanced_batches(labels, 2, 3, seed=5)[3].tolist() == [3, 4, 3, 7, 6, 5]


def test_every_class_is_drawn_equally_often():
    """Dropping the remainder favours no class: over many epochs all are shown about equally often."""
    labels = np.repeat(np.arange(7), 2)
    batches = class_balanced_batches(labels, 3, 1, seed=0)
    shown = np.concatenate([labels[batches[step]] for step in range(2 * 2000)])
    np.testing.assert_allclose(np.bincount(shown) / len(shown), 1 / 7, atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(labels=[0, 1], classes_per_batch=3), r"at most the number of classes \(2\); got 3"),
        (dict(labels=[0, 1], classes_per_batch=0), "at least 1 .* got 0"),
        (dict(labels=[], classes_per_batch=1), r"must be \[n\] integers; got shape \(0,\), dtype float64"),
        (dict(labels=[0.0, 1.0]), "integers; got shape .* dtype float64"),
        (dict(labels=[[0, 1]]), r"\[n\] integers; got shape \(1, 2\)"),
        (dict(images_per_class=0), "images_per_class must be at least 1; got 0"),
        (dict(shard=(2, 2)), r"shard must be \(i, w\) with 0 ≤ i < w; got \(2, 2\)"),
        (dict(seed=-1), "seed must not be negative; got -1"),
    ],
)
def test_bad_arguments_are_refused_with_what_was_received(arguments, message):
    """Each bound has its own message."""
    good = dict(labels=[0, 0, 1, 1], classes_per_batch=2, images_per_class=2, seed=0)
    with pytest.raises(ValueError, match=message):
        class_balanced_batches(**{**good, **arguments})


def test_a_negative_step_is_refused():
    """There is no batch before the first."""
    with pytest.raises(IndexError, match="must not be negative; got -1"):
        class_balanced_batches([0, 1], 1, 1, seed=0)[-1]
