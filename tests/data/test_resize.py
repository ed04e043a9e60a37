"""Bilinear resizing."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from rll_tf.data import resize as resize_module
from rll_tf.data.resize import resize


@settings(deadline=None, max_examples=60)
@given(*[st.integers(1, 90)] * 2, *[st.integers(1, 70)] * 2, st.sampled_from([1, 3, 4]), st.integers(0, 99))
def test_resizing_equals_tensorflows(height, width, to_height, to_width, channels, seed):
    """Up, down, from and to a single pixel: within 0.02 of a grey value."""
    image = np.random.default_rng(seed).integers(0, 256, [height, width, channels], np.uint8)
    wanted = tf.image.resize(image, [to_height, to_width], antialias=True)
    np.testing.assert_allclose(resize(tf.constant(image[None]), to_height, to_width)[0], wanted, atol=0.02)


def test_a_large_shrink_is_an_average():
    """A photograph of 3,000 pixels becomes 16: every pixel weighs in, none twice."""
    image = np.random.default_rng(0).integers(0, 256, [3000, 40, 3], np.uint8)
    wanted = tf.image.resize(image, [16, 40], antialias=True)
    np.testing.assert_allclose(resize(tf.constant(image[None]), 16, 40)[0], wanted, atol=0.02)


def test_the_same_size_is_the_same_picture():
    """Nothing is blurred."""
    image = np.random.default_rng(0).integers(0, 256, [33, 47, 3], np.uint8)
    np.testing.assert_array_equal(resize(tf.constant(image[None]), 33, 47)[0], image)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_a_window_is_cut_from_the_whole(height, width, data):
    """To the last bit, for any size of input, wherever the window lies."""
    image = tf.constant(np.random.default_rng(0).integers(0, 256, [2, height, width, 3], np.uint8))
    spans = [sorted(data.draw(st.sets(st.integers(0, side), min_size=2, max_size=2))) for side in (50, 70)]
    (top, bottom), (left, right) = spans
    whole = resize(image, 50, 70)
    np.testing.assert_array_equal(resize(image, 50, 70, tf.constant(spans)), whole[:, top:bottom, left:right])


@pytest.mark.parametrize("values", [1, 700, 4001])
def test_a_large_picture_is_resized_in_parts(values, monkeypatch):
    """Every value to the last bit what it is at once."""
    image = tf.constant(np.random.default_rng(3).integers(0, 256, [2, 61, 97, 3], np.uint8))
    at_once = resize(image, 20, 30)
    monkeypatch.setattr(resize_module, "PART_VALUES", values)
    np.testing.assert_array_equal(resize(image, 20, 30), at_once)
    np.testing.assert_array_equal(tf.function(resize)(image, 20, 30), at_once)
