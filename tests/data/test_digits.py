"""The scanned digits: all of them, dark on white, split by class."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from rll_tf.data.digits import digits


def test_all_digits_are_there() -> None:
    """1,797 grey pictures of 8 x 8, one int64 label and one distinct readable name each."""
    catalogue = digits()
    assert catalogue.pixels is not None
    assert catalogue.pixels.shape == (1797, 8, 8, 1)
    assert catalogue.pixels.dtype == np.uint8
    assert catalogue.labels.dtype == np.int64
    assert catalogue.class_names == tuple("0123456789")
    assert len(set(catalogue.paths)) == 1797
    assert catalogue.paths[42] == f"digits/{load_digits().target[42]}/0042"


def test_ink_is_dark_on_white() -> None:
    """The scan's 0 to 16 become 255 to 0, within half a grey level."""
    catalogue = digits()
    assert catalogue.pixels is not None
    expected = 255 * (1 - load_digits().images / 16)
    assert np.abs(catalogue.pixels[..., 0] - expected).max() <= 0.5
    assert catalogue.pixels.min() == 0
    assert catalogue.pixels.max() == 255


def test_splits_share_no_class_and_cover_everything() -> None:
    """0 to 4 train, 5 and 6 validate, 7 to 9 test."""
    catalogue = digits()
    classes = {name: set(catalogue.select(name).labels) for name in catalogue.splits}
    assert classes == {"train": {0, 1, 2, 3, 4}, "validation": {5, 6}, "test": {7, 8, 9}}
    everything = np.concatenate(list(catalogue.splits.values()))
    np.testing.assert_array_equal(np.sort(everything), np.arange(1797))


def test_every_call_gives_the_same() -> None:
    """There is nothing random in it."""
    np.testing.assert_array_equal(digits().pixels, digits().pixels)
    assert digits().paths == digits().paths
