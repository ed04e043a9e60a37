"""Any KerasHub backbone with a pyramid as a trunk; its last three levels are low, mid and high."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import keras

from rll_tf.models.backbone import LEVELS, Backbone, new_layers, pooled_head
from rll_tf.models.keras_application import scaled_pixels

PREFIX = "keras_hub:"


def keras_hub_backbone(preset: str) -> Backbone:
    """The backbone of a KerasHub preset, with its weights.

    It takes RGB pixels of 0 to 255 and scales them as the preset's image converter does; a preset without
    one takes them as they are.

    Args:
        preset: a name such as `resnet_50_imagenet`, a `kaggle://` or `hf://` address, or a directory that
            KerasHub's `save_to_preset` wrote.

    Raises:
        ImportError: KerasHub is not installed.
    """
    return Backbone(
        trunk=functools.partial(_trunk, _package(preset), preset),
        taps={level: level for level in LEVELS},
        head=pooled_head,
        input_shape=(224, 224, 3),
        embedding_dim=512,
        new_layers=new_layers(),
    )


def _package(preset: str) -> ModuleType:
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            f"backbone {PREFIX}{preset} needs KerasHub: python -m pip install 'rll_tf[keras-hub]' ({error})"
        ) from error
    return keras_hub


def _trunk(package: ModuleType, preset: str, input_shape: tuple[int, int, int]) -> keras.Model:
    try:
        backbone = package.models.Backbone.from_preset(preset, image_shape=input_shape)
    except Exception as error:  # whatever goes wrong on the way to a registry
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"KerasHub can't load {preset}: {type(error).__name__}: {reason}") from error
    # Level ("P3": stride 8) -> the tensor that ends it.
    pyramid = getattr(backbone, "pyramid_outputs", {})
    last = sorted(pyramid, key=lambda level: int(level.lstrip("P")))[-len(LEVELS) :]
    if len(last) < len(LEVELS):
        raise ValueError(f"{preset} has {len(last)} pyramid levels; low, mid and high need three")
    inputs = keras.Input(input_shape, name="pictures")
    pixels = scaled_pixels(inputs, *_preprocessing(package, preset))
    network = keras.Model(
        backbone.inputs[0], {level: pyramid[name] for level, name in zip(LEVELS, last, strict=True)}
    )
    # Not as one layer, so that a model of some levels contains only what it needs.
    return keras.Model(inputs, network.call(pixels), name="trunk")


def _preprocessing(package: ModuleType, preset: str) -> tuple[Any, Any]:
    """The scale and the offset of the preset's image converter."""
    try:
        converter = package.layers.ImageConverter.from_preset(preset)
    except (FileNotFoundError, ValueError):  # a backbone saved alone
        return 1.0, 0.0
    return converter.scale or 1.0, converter.offset or 0.0
