"""The catalogue and the names of data sets."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rll_tf.data import Catalogue, open_dataset


def toy(sizes, **fields):
    """A catalogue in memory with classes of these sizes."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    count = len(labels)
    return Catalogue(
        spec="toy",
        paths=tuple(f"picture {i}" for i in range(count)),
        labels=labels,
        class_names=tuple(f"class {i}" for i in range(len(sizes))),
        pixels=np.random.default_rng(0).integers(0, 256, [count, 5, 7, 3], np.uint8),
        **fields,
    )


@given(st.lists(st.integers(1, 4), min_size=1, max_size=30), st.floats(0, 0.99), st.integers(0, 3))
def test_held_out_classes_are_disjoint_and_never_single_pictures(sizes, share, seed):
    """Every picture is in one split, no class in two, at least two classes and pictures on either side."""
    catalogue = toy(sizes).hold_out(share, seed)
    assert sorted(np.concatenate(list(catalogue.splits.values()))) == list(range(len(catalogue)))
    train = set(catalogue.select("train").labels)
    if "validation" in catalogue.splits:
        held = catalogue.select("validation").labels
        assert not train & set(held)
        assert min(np.unique(held, return_counts=True)[1]) >= 2
        assert len(set(held)) >= 2
        assert len(train) >= 2


def test_the_share_and_the_seed_decide_what_is_held_out():
    """A quarter of forty classes is ten; the same seed chooses the same, another seed others."""
    catalogue = toy([3] * 40)
    first, same, other = (catalogue.hold_out(0.25, seed).splits["validation"] for seed in (1, 1, 2))
    assert len(first) == 30
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


@given(
    st.lists(st.integers(1, 4), min_size=4, max_size=40), st.integers(2, 6), st.integers(0, 3), st.booleans()
)
def test_every_class_is_held_out_in_exactly_one_fold(sizes, folds, seed, with_splits):
    """Classes of one picture in none; parts are nearly equal; a test split stays as it is."""
    catalogue = toy(sizes)
    findable = [label for label, size in enumerate(sizes) if size > 1]
    if with_splits:
        test = catalogue.labels == 0
        splits = {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}
        catalogue = dataclasses.replace(catalogue, splits=splits)
        findable = [label for label in findable if label != 0]
    if len(findable) < 2 * folds:
        with pytest.raises(
            ValueError, match=f"{folds} folds need at least {2 * folds} classes .* has {len(findable)}"
        ):
            catalogue.fold(1, folds, seed)
        return
    held = []
    for number in range(1, folds + 1):
        fold = catalogue.fold(number, folds, seed)
        classes = {name: set(fold.select(name).labels) for name in fold.splits}
        assert not classes["train"] & classes["validation"]
        held.append(sorted(classes["validation"]))
        if with_splits:
            np.testing.assert_array_equal(fold.splits["test"], catalogue.splits["test"])
            assert not classes["test"] & (classes["train"] | classes["validation"])
    assert sorted(itertools.chain(*held)) == findable
    assert max(map(len, held)) - min(map(len, held)) <= 1


def test_holding_out_leaves_the_test_classes_alone():
    """Of a data set with training and test classes, only training classes are held out."""
    catalogue = toy([3] * 20)
    splits = {"train": np.arange(30), "test": np.arange(30, 60)}
    held = dataclasses.replace(catalogue, splits=splits).hold_out(0.2, seed=1)
    assert list(held.splits["test"]) == list(range(30, 60))
    assert len(held.splits["validation"]) == 6
    assert sorted([*held.splits["train"], *held.splits["validation"]]) == list(range(30))


@pytest.mark.parametrize(("number", "folds"), [(0, 2), (3, 2), (1, 1)])
def test_a_fold_that_is_none_is_refused(number, folds):
    """Folds count from 1, and there are at least two."""
    with pytest.raises(ValueError, match=f"got {number} of {folds}"):
        toy([2] * 20).fold(number, folds, 0)


def test_a_selection_keeps_labels_and_names():
    """`select` takes the split's pictures in order and leaves labels as they were."""
    catalogue = toy([2, 3], splits={"test": np.array([4, 2])})
    selected = catalogue.select("test")
    assert selected.paths == ("picture 4", "picture 2")
    assert selected.labels.tolist() == [1, 1]
    np.testing.assert_array_equal(selected.pixels, catalogue.pixels[[4, 2]])
    assert selected.class_count == 1
    assert catalogue.select("all") is catalogue
    with pytest.raises(ValueError, match=r"no split 'valid'; it has: test, all"):
        catalogue.select("valid")


def test_pictures_in_memory_are_encoded_without_loss():
    """`encoded` gives a PNG of the same pixels, for grey pictures too."""
    catalogue = toy([2])
    np.testing.assert_array_equal(Image.open(io.BytesIO(catalogue.encoded(1))), catalogue.pixels[1])
    grey = Catalogue("toy", ("a",), np.array([0]), ("c",), pixels=catalogue.pixels[:1, :, :, :1])
    np.testing.assert_array_equal(Image.open(io.BytesIO(grey.encoded(0))), grey.pixels[0, :, :, 0])


def test_unequal_lengths_are_refused():
    """Paths, pixels and labels go together."""
    with pytest.raises(ValueError, match="got 1 paths, 2 labels"):
        Catalogue("toy", ("a",), np.array([0, 1]), ("c", "d"))
    with pytest.raises(ValueError, match="got 3 pictures, 1 labels"):
        Catalogue("toy", ("a",), np.array([0]), ("c",), pixels=np.zeros([3, 2, 2, 1], np.uint8))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mnist", "unknown data set 'mnist'; known are: glyphs, digits, folder:PATH"),
        ("folder", "needs a path, as in folder:PATH; got 'folder'"),
        ("glyphs:here", "takes no path; got 'glyphs:here'"),
    ],
)
def test_a_wrong_spec_says_what_is_known(spec, message):
    """Each mistake in a SPEC has its own message."""
    with pytest.raises(ValueError, match=message):
        open_dataset(spec)


@given(st.lists(st.integers(1, 4), min_size=4, max_size=30), st.floats(0.01, 0.99))
def test_test_classes_set_apart(sizes, share):
    """Two classes at least on either side, the same every time; held-out classes come from the others."""
    catalogue = toy(sizes).set_apart(share)
    train, test = set(catalogue.select("train").labels), set(catalogue.select("test").labels)
    assert not train & test
    assert train | test == set(range(len(sizes)))
    assert min(len(train), len(test)) >= 2
    assert toy(sizes).set_apart(share).splits["test"].tolist() == catalogue.splits["test"].tolist()
    assert set(catalogue.without_test().labels) == train
    assert not set(catalogue.hold_out(0.5, 3).select("train").labels) & test


def test_a_data_sets_own_splits_stand():
    """Nothing is set apart from a catalogue with splits; of three classes nothing can be."""
    digits = open_dataset("digits")
    assert digits.set_apart(0.5) is digits
    assert digits.without_test().class_count == 7
    with pytest.raises(ValueError, match="needs at least 4 classes; toy has 3"):
        toy([2, 2, 2]).set_apart(0.5)
