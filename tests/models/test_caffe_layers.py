"""Caffe's padding, pooling and batch norm, against loops written from Caffe's source."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rll_tf.models import embedding_model, freeze_batch_norm
from rll_tf.models.caffe_layers import (
    AveragePooling,
    BatchNorm,
    Convolution,
    Kernel,
    MaxPooling,
    SharedConvolution,
)


def random(*shape):
    """Asymmetric input below zero, where a zero of padding would win a max pooling."""
    return np.random.default_rng(0).normal(-3, 1, shape).astype(np.float32)


def caffe_pool(x, kernel, stride, pad, average):
    """Pooling as Caffe's pooling_layer.cpp computes it, one cell at a time."""
    sides = []
    for size in x.shape[1:3]:
        cells = int(np.ceil((size + 2 * pad - kernel) / stride)) + 1
        if pad and (cells - 1) * stride >= size + pad:
            cells -= 1
        sides.append(cells)
    out = np.zeros((x.shape[0], *sides, x.shape[3]))
    height, width = x.shape[1:3]
    for i in range(sides[0]):
        for j in range(sides[1]):
            top, left = i * stride - pad, j * stride - pad
            bottom, right = min(top + kernel, height + pad), min(left + kernel, width + pad)
            count = (bottom - top) * (right - left)
            cells = x[:, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
            out[:, i, j] = cells.sum((1, 2)) / count if average else cells.max((1, 2))
    return out


@pytest.mark.parametrize("size", [(3, 3), (7, 8), (8, 9), (14, 14), (57, 30)])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 2, 0), (3, 1, 1), (5, 3, 0), (3, 2, 1)])
@pytest.mark.parametrize("layer", [MaxPooling, AveragePooling])
def test_pooling_is_caffes(layer, kernel, stride, pad, size):
    """Windows round up; the maximum ignores padding, the mean divides by it but not by what lies beyond."""
    x = random(2, *size, 3)
    pool = layer(kernel, stride, pad)
    wanted = caffe_pool(x, kernel, stride, pad, layer is AveragePooling)
    np.testing.assert_allclose(pool(x), wanted, rtol=1e-5, atol=1e-5)
    assert pool.compute_output_shape(x.shape) == wanted.shape


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(5, 3, 0), (3, 1, 1)])
def test_means_of_half_precision_do_not_overflow(kernel, stride, pad, dtype):
    """The sum of a window is beyond float16's largest number, 65,504; the mean is not."""
    x = random(2, 8, 9, 3) + 20_000
    pool = AveragePooling(kernel, stride, pad, dtype=f"mixed_{dtype}")
    means = pool(x)
    assert means.dtype == dtype
    wanted = caffe_pool(x, kernel, stride, pad, average=True)
    np.testing.assert_allclose(np.asarray(means, np.float64), wanted, rtol=2**-8)


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (227, 13)])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(7, 2, 3), (3, 2, 1), (3, 1, 1), (1, 1, 0)])
def test_convolution_pads_both_ends_alike(kernel, stride, pad, size):
    """Equals a convolution without padding of the padded input."""
    x, conv = random(2, *size, 3), Convolution(4, kernel, stride, pad)
    outputs = conv(x)
    padded = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    wanted = tf.nn.conv2d(padded, conv.kernel.value, stride, "VALID")
    np.testing.assert_allclose(outputs, wanted, rtol=1e-4, atol=1e-4)
    assert conv.compute_output_shape(x.shape) == wanted.shape


def test_shared_convolution_equals_its_branches():
    """Each output is the convolution of the input with one kernel."""
    x = random(2, 5, 6, 7)
    kernels = [Kernel(filters)(x) for filters in (3, 4, 2)]
    for kernel, outputs in zip(kernels, SharedConvolution()([x, *kernels]), strict=True):
        np.testing.assert_allclose(outputs, tf.nn.conv2d(x, kernel, 1, "VALID"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (8, 3)])
def test_batch_norm_equals_kerass(shape):
    """Training outputs, moving statistics (the variance unbiased), then inference."""
    x, ours = random(*shape), BatchNorm(momentum=0.9)
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-5)
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(ours.moving_mean, 0.1 * x.mean(axes), rtol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, 0.9 + 0.1 * x.var(axes, ddof=1), rtol=1e-5)
    theirs.moving_variance.assign(ours.moving_variance)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_frozen_batch_norm_stays():
    """A step of training leaves its four variables bit-equal; training outputs are those of inference."""
    model = freeze_batch_norm(embedding_model("inception_bn", ["low"], 8, input_shape=(75, 75, 3)))
    norms = [layer for layer in model.layers if isinstance(layer, BatchNorm)]
    rng = np.random.default_rng(0)
    for norm in norms:
        norm.moving_mean.assign(rng.normal(0, 0.1, norm.moving_mean.shape))
    before = [[weight.numpy() for weight in norm.weights] for norm in norms]
    kernel = model.get_layer("conv1_7x7_s2").kernel.numpy()
    x = rng.normal(0, 50, [3, 75, 75, 3]).astype(np.float32)
    model.compile("sgd", "mse", jit_compile=False)
    model.train_on_batch(x, {"low": np.ones([3, 8], np.float32)})
    for norm, weights in zip(norms, before, strict=True):
        for weight, value in zip(norm.weights, weights, strict=True):
            np.testing.assert_array_equal(weight, value)
    assert not np.array_equal(model.get_layer("conv1_7x7_s2").kernel, kernel)
    np.testing.assert_allclose(model(x, training=True)["low"], model(x, training=False)["low"], atol=1e-6)


def test_an_unknown_size_is_refused():
    """The arithmetic needs the sides."""
    with pytest.raises(ValueError, match=r"known height and width; got shape \(None, None, 5, 3\)"):
        MaxPooling(3, 2)(keras.Input([None, 5, 3]))
