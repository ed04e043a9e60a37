"""What the tests of several losses share."""

import contextlib

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst


@contextlib.contextmanager
def uncompiled():
    """The same lines, operation by operation: compiling takes a hundred times as long as a small batch."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def value_and_gradients(function, *arrays, compiled=False):
    """`function(*arrays)` and the gradient of its mean by each array, as NumPy's."""
    tensors = [tf.convert_to_tensor(array) for array in arrays]
    with contextlib.nullcontext() if compiled else uncompiled(), tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
        mean = tf.reduce_mean(tf.cast(value, tf.float64))
    return value.numpy(), [tf.convert_to_tensor(each).numpy() for each in tape.gradient(mean, tensors)]


@st.composite
def batches(draw, copies=True):
    """N of 2 to 14, D of 1 to 6, unequal classes, embeddings of several lengths, sometimes with copies."""
    count, dimensions = draw(st.integers(2, 14)), draw(st.integers(1, 6))
    labels = draw(npst.arrays(np.int64, count, elements=st.integers(0, draw(st.integers(0, 5)))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    embeddings = rng.normal(size=[count, dimensions]) * draw(st.sampled_from([0.2, 1.0, 3.0]))
    if copies and draw(st.booleans()):
        embeddings[rng.integers(count)] = embeddings[rng.integers(count)]
    return labels, embeddings


def agrees_with_oracle(function, oracle, labels, embeddings, **arguments):
    """The value is the oracle's in both dtypes, the gradient in float64 the oracle's slope.

    The slope is taken along one random direction, and only where no two embeddings coincide.
    """
    expected = oracle(labels, embeddings, **arguments)
    for dtype, tolerance in ((np.float32, 3e-5), (np.float64, 1e-11)):
        value, (gradient,) = value_and_gradients(
            lambda array: function(labels, array, **arguments), embeddings.astype(dtype)
        )
        assert value.dtype == dtype
        if dtype == np.float64 or not coincide(embeddings):
            np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)
        assert np.all(np.isfinite(gradient))
    if not coincide(embeddings):
        direction = np.random.default_rng(0).normal(size=embeddings.shape)
        ends = [np.mean(oracle(labels, embeddings + step * direction, **arguments)) for step in (1e-6, -1e-6)]
        np.testing.assert_allclose(
            np.sum(gradient * direction), (ends[0] - ends[1]) / 2e-6, rtol=2e-5, atol=1e-7
        )


def coincide(embeddings):
    """Whether two embeddings are equal."""
    return len(np.unique(embeddings, axis=0)) < len(embeddings)
