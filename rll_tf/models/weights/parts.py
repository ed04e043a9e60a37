"""What a model takes from a file: which tensors of which shapes, and how they become variables."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping

import keras
import numpy as np

from rll_tf.models.inception_bn import keras_name
from rll_tf.models.weights.naming import BETA, BIAS, FACTOR, GAMMA, KERNEL, MEAN, VARIANCE, Naming

Tensors = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Part:
    """What one layer of a model takes from a file.

    Args:
        layer: its name.
        names: what for -> the tensor's name in the file.
        shapes: what for -> the tensor's shape in the file; sides of 1 don't matter.
        convert: what for -> numbers, to {variable's path: its value}.
        optional: what the file may lack.
        may_be_new: whether the file may lack all of it.
    """

    layer: str
    names: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    convert: Callable[[Tensors], Tensors]
    optional: Collection[str] = ()
    may_be_new: bool = False


def keras_parts(model: keras.Model, new_layers: Collection[str]) -> list[Part]:
    """Each variable of a model by its path."""
    parts = []
    for variable in model.weights:
        path, layer = variable.path, variable.path.partition("/")[0]
        shapes = {path: tuple(variable.shape)}
        parts.append(Part(layer, {path: path}, shapes, dict, may_be_new=layer in new_layers))
    return parts


def network_parts(model: keras.Model, naming: Naming) -> list[Part]:
    """The layers of an origin's network that a model has, each with its batch norm."""
    layers = {layer.name: layer for layer in model.layers}
    parts = []
    for name, has_norm in naming.layers:
        layer = layers.get(keras_name(name))
        if layer is None:
            continue
        names = naming.tensors(name, has_norm)
        *sides_px, inputs, outputs = layer.kernel.shape
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            inputs, outputs = outputs, inputs
        shapes = dict.fromkeys(names, (outputs,))
        shapes |= {KERNEL: (outputs, inputs, *sides_px), FACTOR: (1,)}
        convert = functools.partial(_convert, layer)
        # Where batch norm follows, it takes the bias's place.
        optional = {BIAS} if has_norm else set()
        parts.append(Part(layer.name, names, shapes, convert, optional, may_be_new=name in naming.new))
    return parts


def _convert(layer: keras.Layer, tensors: Tensors) -> dict[str, np.ndarray]:
    """Values of a layer's kernel and of the batch norm behind it."""
    height, width, *channels = layer.kernel.shape
    kernel = tensors[KERNEL]
    if not channels:
        kernel = _dense_kernel(layer, kernel.reshape(width, height))
    elif isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = kernel.reshape(*channels, height, width).transpose(2, 3, 0, 1)
    else:
        kernel = kernel.reshape(*channels[::-1], height, width).transpose(2, 3, 1, 0)
    values = {layer.kernel.path: kernel}
    if GAMMA not in tensors:
        return values | ({layer.bias.path: tensors[BIAS]} if BIAS in tensors else {})
    norm: Tensors = {role: array.astype(np.float64).ravel() for role, array in tensors.items()}
    # Caffe stores a sum of statistics and the sum of their weights, which is 0 if there are none yet.
    factor = norm[FACTOR].item() if FACTOR in norm else 1.0
    scale = 1 / factor if factor else 0.0
    return values | {
        f"{layer.name}_bn/gamma": norm[GAMMA],
        f"{layer.name}_bn/beta": norm[BETA],
        # (x + bias − mean) = x − (mean − bias)
        f"{layer.name}_bn/moving_mean": norm[MEAN] * scale - norm.get(BIAS, 0.0),
        f"{layer.name}_bn/moving_variance": norm[VARIANCE] * scale,
    }


def _dense_kernel(layer: keras.Layer, kernel: np.ndarray) -> np.ndarray:
    """From [out, in] to [in, out]; what was flattened from C×h×w there is flattened from h×w×C here."""
    source = layer._inbound_nodes[0].input_tensors[0]._keras_history.operation
    if isinstance(source, keras.layers.Flatten):
        height, width, channels = source.input.shape[1:]
        kernel = kernel.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(kernel), -1)
    return kernel.T
