"""What a backbone must bring to become an embedding model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import keras


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A trunk with three taps, and the heads that read them.

    Args:
        trunk: input shape, and the layout where there are several -> `keras.Model` whose output is a dict of
            taps [B, h, w, c].
        taps: level -> the name of the trunk's output that its head reads.
        head: (level, tap, embedding_dim) -> [B, embedding_dim], not yet normalised.
        input_shape: the default (height, width, channels).
        embedding_dim: the default number of numbers in each level's embedding.
        layouts: the trunk's variants, the default first; empty if there is one.
        new_layers: level -> the layers that no pretrained file holds, and that learn faster than the others.
    """

    trunk: Callable[..., keras.Model]
    taps: Mapping[str, str]
    head: Callable[[str, keras.KerasTensor, int], keras.KerasTensor]
    input_shape: tuple[int, int, int]
    embedding_dim: int
    layouts: tuple[str, ...] = ()
    new_layers: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


def embedding_layer(name: str, features: keras.KerasTensor, embedding_dim: int) -> keras.KerasTensor:
    """A new bias-free dense layer, with Caffe's "xavier" weights: uniform within ±sqrt(3 / fan_in)."""
    xavier = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
    return keras.layers.Dense(embedding_dim, use_bias=False, kernel_initializer=xavier, name=name)(features)
