"""Any network of `keras.applications` as a trunk; its last three strides are low, mid and high."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from rll_tf.models.backbone import LEVELS, Backbone, new_layers, pooled_head

PREFIX = "keras:"


def keras_application(name: str) -> Backbone:
    """The backbone of that name in `keras.applications`, such as `ResNet50`.

    It takes RGB pixels of 0 to 255 and scales them itself, as its ImageNet weights need it.

    Raises:
        ValueError: there is none.
    """
    known = _applications()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or sorted(known)
        raise ValueError(f"keras.applications has no {name!r}; it has for example {', '.join(near)}")
    return Backbone(
        trunk=functools.partial(_trunk, name),
        taps={level: level for level in LEVELS},
        head=pooled_head,
        input_shape=(224, 224, 3),
        embedding_dim=512,
        new_layers=new_layers(),
        loads_weights=True,
    )


def scaled_pixels(
    pixels: keras.KerasTensor, scale: Any = 1.0, offset: Any = 0.0, *, bgr: bool = False
) -> keras.KerasTensor:
    """`pixels · scale + offset` for each channel, in the network's order."""
    if bgr:
        pixels = keras.ops.flip(pixels, -1)
    if np.all(np.equal(scale, 1)) and not np.any(offset):
        return pixels
    return keras.layers.Rescaling(scale, offset, name="pixels")(pixels)


def _applications() -> dict[str, Callable[..., keras.Model]]:
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return {name: function for name, function in functions if name[0].isupper()}


def _trunk(name: str, input_shape: tuple[int, int, int], weights: str | None = None) -> keras.Model:
    application = _applications()[name]
    inputs = keras.Input(input_shape, name="pictures")
    pixels = scaled_pixels(inputs, **_preprocessing(application))
    try:
        network = application(include_top=False, weights=weights, input_tensor=pixels)
    except Exception as error:  # whatever goes wrong on the way to the weights
        reason = (str(error).strip().splitlines() or [""])[0]
        beside = f" with weights {weights}" if weights else ""
        raise ValueError(f"keras.applications can't build {name}{beside}: {reason}") from error
    return keras.Model(inputs, _taps(network, min(input_shape[:2])), name="trunk")


def _preprocessing(application: Callable[..., keras.Model]) -> dict[str, Any]:
    """What its module's `preprocess_input` does to pixels, found by trying black and each pure colour."""
    preprocess = sys.modules[application.__module__].preprocess_input
    colours = np.concatenate([np.zeros([1, 3]), 255 * np.eye(3)]).astype(np.float32)
    black, *pure = preprocess(colours[:, None, None]).reshape(4, 3)
    change = np.array(pure) - black  # [colour, the network's channel]
    scale = np.abs(change).sum(0) / 255
    return {"scale": scale.tolist(), "offset": black.tolist(), "bgr": bool(change[0, 2])}


def _taps(network: keras.Model, side_px: int) -> dict[str, keras.KerasTensor]:
    """At each of the last three strides, the last tensor that everything flows through.

    Where there is none, as in NASNet, it is the last one that several flow into.
    """
    operations = network.operations  # each behind those that it reads
    position = {id(operation): number for number, operation in enumerate(operations)}
    narrow: dict[int, keras.KerasTensor] = {}
    merged: dict[int, keras.KerasTensor] = {}
    last_reader = [0] * len(operations)
    sources = [_sources(operation) for operation in operations]
    for number, read in enumerate(sources):
        for source in read:
            last_reader[position[id(source)]] = number
    reach = 0  # the last operation that reads something from before the current one
    for number, operation in enumerate(operations):
        shape = operation.output.shape
        if len(shape) == 4 and not isinstance(operation, keras.layers.ZeroPadding2D):
            stride = round(math.log2(side_px / min(shape[1:3])))
            if reach <= number:
                narrow[stride] = operation.output
            elif len(sources[number]) > 1 and min(shape[1:3]) > 1:
                merged[stride] = operation.output
        reach = max(reach, last_reader[number])
    found = merged | narrow
    if len(found) < len(LEVELS):
        raise ValueError(f"{network.name} has {len(found)} strides; low, mid and high need three")
    return dict(zip(LEVELS, (found[stride] for stride in sorted(found)[-len(LEVELS) :]), strict=True))


def _sources(operation: Any) -> list[Any]:
    tensors = operation._inbound_nodes[-1].input_tensors
    return [tensor._keras_history.operation for tensor in tensors]
