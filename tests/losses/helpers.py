"""What the tests of several losses share."""

import contextlib

import tensorflow as tf


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
