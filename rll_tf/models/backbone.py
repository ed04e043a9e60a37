"""What a backbone must bring to become an embedding model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import keras

LEVELS = ("low", "mid", "high")


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A trunk with three taps, and the heads that read them.

    Args:
        trunk: input shape, and layout or weights where it takes them -> `keras.Model` whose output is a dict
            of taps [B, h, w, c].
        taps: level -> the name of the trunk's output that its head reads.
        head: (level, tap, embedding_dim) -> [B, embedding_dim], not yet normalised.
        input_shape: the default (height, width, channels).
        embedding_dim: the default number of dimensions of each level's embedding.
        layouts: the trunk's variants, the default first; empty if there is one.
        new_layers: level -> the layers that no pretrained file holds, and that learn faster than the others.
        imagenet: finds the file of its ImageNet weights, where one can be installed.
        loads_weights: whether the trunk takes `weights` itself, `"imagenet"` or a file.
    """

    trunk: Callable[..., keras.Model]
    taps: Mapping[str, str]
    head: Callable[[str, keras.KerasTensor, int], keras.KerasTensor]
    input_shape: tuple[int, int, int]
    embedding_dim: int
    layouts: tuple[str, ...] = ()
    new_layers: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    imagenet: Callable[[], Path] | None = None
    loads_weights: bool = False


def embedding_layer(name: str, features: keras.KerasTensor, embedding_dim: int) -> keras.KerasTensor:
    """A new bias-free dense layer, with Caffe's "xavier" weights: uniform within ±sqrt(3 / fan_in)."""
    xavier = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
    return keras.layers.Dense(embedding_dim, use_bias=False, kernel_initializer=xavier, name=name)(features)


def pooled_head(level: str, features: keras.KerasTensor, embedding_dim: int) -> keras.KerasTensor:
    """Global average pooling, then a new bias-free dense layer: [B, h, w, c] -> [B, embedding_dim].

    The paper's head of the high level (section 3.4), here on every level.
    """
    features = keras.layers.GlobalAveragePooling2D(name=f"{level}_pool")(features)
    return embedding_layer(f"{level}_embedding", features, embedding_dim)


def new_layers() -> dict[str, tuple[str, ...]]:
    """The new layers of `pooled_head`, by level."""
    return {level: (f"{level}_embedding",) for level in LEVELS}
