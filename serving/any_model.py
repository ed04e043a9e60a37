"""Any Keras model as one that can be exported: a dictionary of embeddings of unit norm."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import keras

from rll_tf.data import Preprocessing
from rll_tf.models import without_proxies

# Of a model with one output.
EMBEDDING = "embedding"
# How the usual networks take pixels, by the names of `keras.applications`' modes where it has one.
PIXEL_RANGES: dict[str, dict[str, Any]] = {
    "raw": dict(mean=(0.0, 0.0, 0.0), scale=1.0),
    "0-1": dict(mean=(0.0, 0.0, 0.0), scale=255.0),
    "tf": dict(mean=(127.5, 127.5, 127.5), scale=127.5),
    "torch": dict(mean=(123.675, 116.28, 103.53), scale=(58.395, 57.12, 57.375)),
    "caffe": dict(mean=(103.939, 116.779, 123.68), scale=1.0, bgr=True),
}


def input_side(model: keras.Model) -> int | None:
    """The side in pixels of the squares that a model takes; None where it takes any, or doesn't say.

    Raises:
        ValueError: it does not take one batch of square pictures.
    """
    inputs = getattr(model, "inputs", None)  # a subclass of `keras.Model` has none
    if not inputs:
        return None
    shape = inputs[0].shape
    if len(inputs) > 1 or len(shape) != 4 or shape[1] != shape[2] or shape[3] not in (None, 1, 3):
        shapes = ", ".join(str(tensor.shape) for tensor in inputs)
        raise ValueError(f"the model must take square pictures, [B, side, side, 1 or 3]; it takes {shapes}")
    return shape[1]


def as_embedding_model(model: keras.Model, preprocessing: Preprocessing) -> keras.Model:
    """The model, from [B, input_px, input_px, 3] to `{name: [B, d]}` float32, every row of unit norm.

    One output is called `embedding`, several by their keys or their layers' names. What
    `rll_tf.models.embedding_model` made is returned as it is; similarities to proxies are left out. A model
    that takes one channel gets the luminance.

    Raises:
        ValueError: it does not take such pictures, or an output is not [B, d] of floats.
    """
    side = preprocessing.input_px
    own = input_side(model)
    if own not in (None, side):
        raise ValueError(f"input_px must be the model's own {own}; got {side}")
    if isinstance(getattr(model, "output", None), Mapping):
        model = without_proxies(model)
    if _is_embedding_model(model):
        return model
    pictures = keras.Input([side, side, 3], name="pictures")
    channels = model.inputs[0].shape[-1] if getattr(model, "inputs", None) else 3
    outputs = model(keras.ops.image.rgb_to_grayscale(pictures) if channels == 1 else pictures)
    if isinstance(outputs, (list, tuple)):
        outputs = dict(zip(model.output_names, outputs, strict=True))
    elif not isinstance(outputs, Mapping):
        outputs = {EMBEDDING: outputs}
    for name, output in outputs.items():
        if len(output.shape) != 2 or "float" not in output.dtype:
            raise ValueError(
                f"an embedding must be [B, d] of floats; output {name} is {output.shape} {output.dtype}"
            )
    norm = functools.partial(keras.layers.UnitNormalization, dtype="float32")
    return keras.Model(pictures, {name: norm(name=name)(output) for name, output in outputs.items()})


def _is_embedding_model(model: keras.Model) -> bool:
    outputs = getattr(model, "output", None)
    return isinstance(outputs, Mapping) and all(
        isinstance(output._keras_history.operation, keras.layers.UnitNormalization)
        for output in outputs.values()
    )
