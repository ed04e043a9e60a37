"""Layers with Caffe's arithmetic of padding and pooling, in ops that are fast on CPU and GPU."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

PACKAGE = "rll_tf"


def pool_pads(size: int, kernel: int, stride: int, pad: int) -> tuple[int, int]:
    """Caffe's pooling rounds up: the last window may hang over the far end, but must begin before it."""
    windows = max(0, -(-(size + 2 * pad - kernel) // stride)) + 1
    if pad and (windows - 1) * stride >= size + pad:
        windows -= 1
    return pad, (windows - 1) * stride + kernel - size - pad


def pool_counts(size: int, kernel: int, stride: int, pad: int) -> np.ndarray:
    """How many cells each of Caffe's average windows divides by: those on `pad` count, those beyond don't."""
    near, far = pool_pads(size, kernel, stride, pad)
    first = np.arange(0, size + near + far - kernel + 1, stride) - pad
    return np.minimum(first + kernel, size + pad) - first


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What TensorFlow's padding `SAME` puts on both ends."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


@keras.saving.register_keras_serializable(PACKAGE)
class Kernel(keras.layers.Layer):
    """Holds the kernel of a bias-free convolution that another layer computes together with its siblings.

    Args:
        filters: output channels.
        kernel_px: side of the square kernel.

    The layer's output is its kernel, [kernel_px, kernel_px, channels, filters]; of its input only the number
    of channels matters.
    """

    def __init__(self, filters: int, kernel_px: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.kernel_px = filters, kernel_px

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the kernel."""
        self.kernel = self.add_weight(
            shape=(self.kernel_px, self.kernel_px, input_shape[-1], self.filters),
            initializer="he_normal",
            name="kernel",
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The kernel, in the compute dtype."""
        return keras.ops.convert_to_tensor(self.kernel)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The kernel's shape."""
        return (self.kernel_px, self.kernel_px, input_shape[-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "filters": self.filters, "kernel_px": self.kernel_px}


@keras.saving.register_keras_serializable(PACKAGE)
class Convolution(Kernel):
    """A bias-free convolution, [B, h, w, channels] -> [B, h', w', filters], padded as Caffe does.

    TensorFlow's `same` puts the odd pixel of an even-sided input on the other end when the stride is 2.
    """

    def __init__(
        self, filters: int, kernel_px: int = 1, stride: int = 1, pad: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(filters, kernel_px, **kwargs)
        self.stride, self.pad = stride, pad

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolve."""
        both_ends = [self.pad, self.pad]
        padding = [[0, 0], both_ends, both_ends, [0, 0]]
        return tf.nn.conv2d(inputs, keras.ops.convert_to_tensor(self.kernel), self.stride, padding)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """[B, h', w', filters]."""
        padded = [size + 2 * self.pad for size in _sides(input_shape, self.name)]
        sides = [(size - self.kernel_px) // self.stride + 1 for size in padded]
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "stride": self.stride, "pad": self.pad}


@keras.saving.register_keras_serializable(PACKAGE)
class SharedConvolution(keras.layers.Layer):
    """Several 1×1 convolutions of one input as one: `[x, kernel, kernel, …]` -> `[y, y, …]`.

    Reads `x` once instead of once a branch, and its gradient is one matrix product instead of a sum of some.
    It has no weights: each kernel comes from its own, named `Kernel`.
    """

    def call(self, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
        """Convolve with the concatenated kernels, then split."""
        features, *kernels = inputs
        outputs = tf.nn.conv2d(features, tf.concat(kernels, -1), 1, "VALID")
        return tf.split(outputs, [kernel.shape[-1] for kernel in kernels], -1)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> list[tuple[int | None, ...]]:
        """One [B, h, w, filters] a kernel."""
        features, *kernels = input_shape
        return [(*features[:-1], kernel[-1]) for kernel in kernels]


class _Pooling(keras.layers.Layer):
    """Caffe's pooling windows over [B, h, w, channels]; `pad` is one number or one for each side."""

    def __init__(self, kernel_px: int, stride: int, pad: int | tuple[int, int] = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_px, self.stride = kernel_px, stride
        self.pad = (pad, pad) if isinstance(pad, int) else tuple(pad)

    def _pads(self, shape: tuple[int | None, ...]) -> list[tuple[int, int]]:
        """Before and after each side."""
        sides = zip(_sides(shape, self.name), self.pad, strict=True)
        return [pool_pads(size, self.kernel_px, self.stride, pad) for size, pad in sides]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """[B, h', w', channels]."""
        sides = []
        for size, pads in zip(_sides(input_shape, self.name), self._pads(input_shape), strict=True):
            sides.append((size + sum(pads) - self.kernel_px) // self.stride + 1)
        return (input_shape[0], *sides, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        config = {"kernel_px": self.kernel_px, "stride": self.stride, "pad": self.pad}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(PACKAGE)
class MaxPooling(_Pooling):
    """The largest value in each window; padding is never the largest."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Pool."""
        pads = self._pads(inputs.shape)
        if pads == [same_pads(size, self.kernel_px, self.stride) for size in inputs.shape[1:3]]:
            return tf.nn.max_pool2d(inputs, self.kernel_px, self.stride, "SAME")
        # XLA has no pooling with explicit padding.
        padded = tf.pad(inputs, [(0, 0), *pads, (0, 0)], constant_values=tf.constant(-np.inf, inputs.dtype))
        return tf.nn.max_pool2d(padded, self.kernel_px, self.stride, "VALID")


@keras.saving.register_keras_serializable(PACKAGE)
class AveragePooling(_Pooling):
    """The mean of each window, zeros on the padding included; TensorFlow's `same` leaves them out.

    Sums are float32: in float16 a window of 25 cells of 2,621 is beyond the largest number, while their mean
    is not.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Pool."""
        sides = zip(inputs.shape[1:3], self.pad, strict=True)
        counts = np.outer(*(pool_counts(size, self.kernel_px, self.stride, pad) for size, pad in sides))
        padded = tf.pad(tf.cast(inputs, tf.float32), [(0, 0), *self._pads(inputs.shape), (0, 0)])
        means = tf.nn.avg_pool2d(padded, self.kernel_px, self.stride, "VALID")
        if (counts != self.kernel_px**2).any():
            means *= tf.constant(self.kernel_px**2 / counts[..., None], tf.float32)
        return tf.cast(means, inputs.dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation over the last axis of [B, h, w, channels] or [B, channels], as one fused op.

    Keras composes it of a dozen passes over the activations. As in Caffe, the moving variance is the unbiased
    one. With `trainable = False` it is frozen: the moving statistics are used in training too, and stay.
    Half-precision input is normalised with float32 statistics, scale and offset. `synchronized` takes the
    statistics of all replicas of a strategy, as Keras computes them, the moving variance biased.

    Momentum is the PyTorch port's, not Caffe's 0.999, which doesn't forget its start within a short run.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Normalise; in training also update the moving statistics."""
        if training and (self.synchronized or not self.trainable):
            # Frozen, its gradient costs less so than the fused op's; inference is faster with that, joined to
            # the convolution before it.
            return super().call(inputs, training=training, mask=mask)
        features = inputs if len(inputs.shape) == 4 else inputs[:, None, None, :]
        moving = {} if training else {"mean": self.moving_mean.value, "variance": self.moving_variance.value}
        scale, offset = self.gamma.value, self.beta.value
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            features, scale, offset, **moving, epsilon=self.epsilon, is_training=bool(training)
        )
        if training:
            for statistic, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                statistic.assign(statistic.value * self.momentum + value * (1 - self.momentum))
        return outputs if len(inputs.shape) == 4 else outputs[:, 0, 0, :]


def freeze_batch_norm(model: keras.Model) -> keras.Model:
    """Fix every batch normalisation of `model`: its moving statistics, scales and offsets stay as they are.

    Training then normalises exactly as inference does. Compile the model after this call.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return model


def synchronise_batch_norm(model: keras.Model) -> keras.Model:
    """Let every batch normalisation of `model` take the statistics of all replicas of a strategy.

    Otherwise each replica normalises by those of its own share of a batch, and keeps moving statistics of its
    own. Compile the model after this call.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
    return model


def _sides(shape: tuple[int | None, ...], name: str) -> tuple[int, int]:
    height, width = shape[1:3]
    if height is None or width is None:
        raise ValueError(f"{name} needs an input of known height and width; got shape {tuple(shape)}")
    return height, width
