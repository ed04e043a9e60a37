"""Any KerasCV backbone as a trunk; its last three pyramid levels are low, mid and high."""

from __future__ import annotations

import difflib
import functools
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from rll_tf.models.backbone import Backbone, embedding_layer

PREFIX = "keras_cv:"
LEVELS = ("low", "mid", "high")


def keras_cv_backbone(preset: str) -> Backbone:
    """The backbone of a KerasCV preset.

    Args:
        preset: a name such as `resnet18_v2` (random weights) or `resnet50_v2_imagenet`, a `kaggle://` or
            `gs://` address, or a directory that KerasCV's `save_to_preset` wrote. KerasCV fetches the former
            from Kaggle, the architecture too, and keeps them.

    Raises:
        ImportError: KerasCV is not installed.
        ValueError: it knows no such preset.
    """
    package = _package(preset)
    return Backbone(
        trunk=functools.partial(_trunk, package.models.Backbone, preset, _address(package, preset)),
        taps={level: level for level in LEVELS},
        head=_head,
        input_shape=(224, 224, 3),
        embedding_dim=512,
        new_layers={level: (f"{level}_dense",) for level in LEVELS},
    )


def _package(preset: str) -> ModuleType:
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError(
            f"backbone {PREFIX}{preset} needs KerasCV: python -m pip install keras-cv ({error})"
        ) from error
    return keras_cv


def _address(package: ModuleType, preset: str) -> str:
    """Where KerasCV finds a preset. Its `Backbone` takes addresses alone, its subclasses know the names."""
    if "://" in preset or Path(preset).is_dir():
        return preset
    backbone = package.models.Backbone
    kinds: list[Any] = [kind for kind in vars(package.models).values() if inspect.isclass(kind)]
    known = {
        name: entry["kaggle_handle"]
        for kind in kinds
        if issubclass(kind, backbone)
        for name, entry in kind.presets.items()
        if "kaggle_handle" in entry
    }
    if preset not in known:
        near = difflib.get_close_matches(preset, sorted(known), n=5, cutoff=0.4) or sorted(known)
        raise ValueError(
            f"KerasCV has no backbone preset {preset!r}, and there is no such directory; "
            f"it has for example {', '.join(near)}"
        )
    return str(known[preset])


def _trunk(kind: Any, preset: str, address: str, input_shape: tuple[int, int, int]) -> keras.Model:
    try:
        backbone = kind.from_preset(address, input_shape=input_shape)
    except Exception as error:  # whatever goes wrong on the way to Kaggle
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"KerasCV can't load {preset}: {type(error).__name__}: {reason}") from error
    try:
        levels = backbone.pyramid_level_inputs
    except NotImplementedError:
        levels = {}
    # Level name ("P3": stride 8) -> the name of the layer that ends it, from fine to coarse.
    pyramid = sorted(levels.items(), key=lambda item: int(item[0].lstrip("P")))
    if len(pyramid) < len(LEVELS):
        raise ValueError(f"{preset} has {len(pyramid)} pyramid levels; low, mid and high need three")
    last = zip(LEVELS, pyramid[-len(LEVELS) :], strict=True)
    taps = {level: backbone.get_layer(layer).output for level, (_, layer) in last}
    return keras.Model(backbone.inputs[0], taps, name="trunk")


def _head(level: str, features: keras.KerasTensor, embedding_dim: int) -> keras.KerasTensor:
    """Global average pooling, then a new bias-free dense layer: [B, h, w, c] -> [B, embedding_dim]."""
    features = keras.layers.GlobalAveragePooling2D(name=f"{level}_pool")(features)
    return embedding_layer(f"{level}_dense", features, embedding_dim)
