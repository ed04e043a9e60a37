"""Trainable proxies, one vector a class: a further output of a model while it learns."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

_SUFFIX = "_similarity"


def similarity_of(level: str) -> str:
    """The name of the output, and layer, of a level's similarities to its proxies."""
    return level + _SUFFIX


@keras.saving.register_keras_serializable(package="rll_tf")
class ProxySimilarity(keras.layers.Layer):
    """Cosine similarities of embeddings [B, D] to a proxy of each class: [B, classes].

    The proxies are weights of this layer, so that `fit` trains and saves them; a loss could do neither. They
    start as Kaiming's normal distribution of fan-out `classes`, as Proxy-Anchor's do (Kim et al. 2020).

    Args:
        classes: C, how many proxies.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        ValueError: `classes` is below 1.
    """

    def __init__(self, classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if classes < 1:
            raise ValueError(f"classes must be at least 1; got {classes}")
        self.classes = classes

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Draw the proxies, [classes, D]."""
        start = keras.initializers.RandomNormal(stddev=math.sqrt(2 / self.classes))
        self.proxies = self.add_weight((self.classes, input_shape[-1]), start, name="proxies")

    def call(self, embeddings: tf.Tensor) -> tf.Tensor:
        """The cosines."""
        proxies = tf.convert_to_tensor(self.proxies)
        return tf.matmul(_unit(embeddings), _unit(proxies), transpose_b=True)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        """[B, classes]."""
        return input_shape[0], self.classes

    def get_config(self) -> dict[str, Any]:
        """Everything that makes an equal layer."""
        return {**super().get_config(), "classes": self.classes}


def is_similarity(name: str) -> bool:
    """Whether an output, or layer, of that name holds similarities to proxies."""
    return name.endswith(_SUFFIX)


def without_proxies(model: keras.Model) -> keras.Model:
    """The model with its embeddings alone as outputs: what is evaluated, exported and served.

    A model without proxies is returned as it is.
    """
    outputs = {name: output for name, output in model.output.items() if not is_similarity(name)}
    return model if len(outputs) == len(model.output) else keras.Model(model.input, outputs, name=model.name)


def _unit(vectors: tf.Tensor) -> tf.Tensor:
    return tf.math.l2_normalize(vectors, axis=1, epsilon=1e-24)
