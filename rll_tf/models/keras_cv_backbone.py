"""Any KerasCV backbone as a trunk; its last three pyramid levels are low, mid and high."""

from __future__ import annotations

import functools

import keras

from rll_tf.models.backbone import Backbone

PREFIX = "keras_cv:"
LEVELS = ("low", "mid", "high")


def keras_cv_backbone(preset: str) -> Backbone:
    """The backbone of a KerasCV preset, such as `resnet18_v2` (random weights) or `resnet50_v2_imagenet`.

    Raises:
        ImportError: KerasCV is not installed.
        ValueError: it knows no such preset.
    """
    return Backbone(
        trunk=functools.partial(_trunk, preset),
        taps={level: level for level in LEVELS},
        head=_head,
        input_shape=(224, 224, 3),
        embedding_dim=512,
        new_layers={level: (f"{level}_dense",) for level in LEVELS},
    )


def _trunk(preset: str, input_shape: tuple[int, int, int]) -> keras.Model:
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError(
            f"backbone {PREFIX}{preset} needs KerasCV: python -m pip install keras-cv ({error})"
        ) from error
    backbone = keras_cv.models.Backbone.from_preset(preset, input_shape=input_shape)
    # Level name ("P3": stride 8) -> the name of the layer that ends it, from fine to coarse.
    pyramid = sorted(backbone.pyramid_level_inputs.items(), key=lambda item: int(item[0].lstrip("P")))
    if len(pyramid) < len(LEVELS):
        raise ValueError(f"{preset} has {len(pyramid)} pyramid levels; low, mid and high need three")
    last = zip(LEVELS, pyramid[-len(LEVELS) :], strict=True)
    taps = {level: backbone.get_layer(layer).output for level, (_, layer) in last}
    return keras.Model(backbone.inputs[0], taps, name="trunk")


def _head(level: str, features: keras.KerasTensor, embedding_dim: int) -> keras.KerasTensor:
    """Global average pooling, then a new bias-free dense layer: [B, h, w, c] -> [B, embedding_dim]."""
    features = keras.layers.GlobalAveragePooling2D(name=f"{level}_pool")(features)
    xavier = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
    return keras.layers.Dense(
        embedding_dim, use_bias=False, kernel_initializer=xavier, name=f"{level}_dense"
    )(features)
