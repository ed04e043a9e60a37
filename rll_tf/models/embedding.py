"""A backbone plus one head per level: what turns a picture into embeddings."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from rll_tf.models import keras_application, keras_cv_backbone, keras_hub_backbone
from rll_tf.models.backbone import LEVELS, Backbone
from rll_tf.models.convnet import CONVNET
from rll_tf.models.efficientnet_lite import EFFICIENTNET_LITE
from rll_tf.models.inception_bn import INCEPTION_BN
from rll_tf.models.proxies import ProxySimilarity, similarity_of

BACKBONES: dict[str, Backbone] = {"convnet": CONVNET, "inception_bn": INCEPTION_BN, **EFFICIENTNET_LITE}
# Backbones of other packages, by what stands before the colon.
FAMILIES: dict[str, Callable[[str], Backbone]] = {
    "keras:": keras_application.keras_application,
    "keras_hub:": keras_hub_backbone.keras_hub_backbone,
    keras_cv_backbone.PREFIX: keras_cv_backbone.keras_cv_backbone,
}


def embedding_model(
    backbone: str = "convnet",
    levels: Sequence[str] = LEVELS,
    embedding_dim: int | None = None,
    *,
    layout: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    proxies: int | None = None,
    weights: str | None = None,
) -> keras.Model:
    """Build a network with one embedding of unit norm for each level (sections 3.4 and 4.3.3 of the paper).

    Each level's head reads an earlier or later output of the backbone. A subset of the levels builds only
    the layers it needs.

    Args:
        backbone: a name in `BACKBONES`; `keras:` and a name in `keras.applications`; or `keras_hub:` or
            `keras_cv:` and a preset of KerasHub or KerasCV.
        levels: some of `"low"`, `"mid"`, `"high"`, each once.
        embedding_dim: dimensions of each level's embedding; the backbone's default if None.
        layout: which of the backbone's variants, where it has several; its first if None.
        input_shape: (height, width, channels); the backbone's default if None.
        proxies: how many classes have a trainable proxy at each level, for losses on proxies; None: no
            proxies. `rll_tf.models.without_proxies` gives the model that is evaluated and served.
        weights: of a `keras:` backbone: `"imagenet"`, which Keras downloads and keeps, or an `.h5` file of
            the network without its top; for all others see `load_pretrained`.

    Returns:
        A model from [B, height, width, channels] float to `{level: [B, embedding_dim]}` float32, every row
        of unit Euclidean norm. Its output layers bear the levels' names. With proxies there are further
        outputs, `{level}_similarity`: [B, proxies] float32, the cosines to each class's proxy.

    Raises:
        ValueError: an unknown backbone, layout or level, a repeated level or none, or a bad size.
        ImportError: a backbone of KerasHub or KerasCV, and that is not installed.
    """
    parts = find_backbone(backbone)
    if layout is not None and layout not in parts.layouts:
        known = f"layout must be one of {', '.join(parts.layouts)}" if parts.layouts else "it has no layouts"
        raise ValueError(f"{backbone}: {known}; got layout={layout!r}")
    if weights is not None and not parts.loads_weights:
        raise ValueError(f"{backbone}: load_pretrained sets its weights; got weights={weights!r}")
    if not levels or len(set(levels)) < len(levels) or not set(levels) <= set(LEVELS):
        raise ValueError(f"levels must be some of {', '.join(LEVELS)}, each once; got {tuple(levels)}")
    embedding_dim = parts.embedding_dim if embedding_dim is None else embedding_dim
    if embedding_dim < 1:
        raise ValueError(f"embedding_dim must be at least 1; got {embedding_dim}")
    variant = {"layout": layout, "weights": weights}
    variant = {name: value for name, value in variant.items() if value is not None}
    trunk = parts.trunk(parts.input_shape if input_shape is None else input_shape, **variant)
    wide = "float64" if keras.config.dtype_policy().name == "float64" else "float32"
    outputs = {}
    for level in levels:
        features = parts.head(level, trunk.output[parts.taps[level]], embedding_dim)
        # Half precision can't hold a unit norm.
        outputs[level] = keras.layers.UnitNormalization(name=level, dtype=wide)(features)
    if proxies is not None:
        for level in levels:
            layer = ProxySimilarity(proxies, name=similarity_of(level), dtype=wide)
            outputs[layer.name] = layer(outputs[level])
    return keras.Model(trunk.input, outputs, name=re.sub(r"\W+", "_", backbone) + "_embedding")


def find_backbone(name: str) -> Backbone:
    """The backbone of that name.

    Raises:
        ValueError: there is none.
    """
    family, colon, rest = name.partition(":")
    if colon and f"{family}:" in FAMILIES:
        return FAMILIES[f"{family}:"](rest)
    if name not in BACKBONES:
        known = [*BACKBONES, "keras:NAME", "keras_hub:PRESET", "keras_cv:PRESET"]
        raise ValueError(f"unknown backbone {name!r}; known are: {', '.join(known)}")
    return BACKBONES[name]


def imagenet_weights(backbone: str) -> Path:
    """The file of a backbone's ImageNet weights, for `load_pretrained`.

    Raises:
        ImportError: the package that holds it is not installed; the message says which.
        ValueError: an unknown backbone, or no package is known for this one.
    """
    find = find_backbone(backbone).imagenet
    if find is None:
        raise ValueError(f"no package holds ImageNet weights of {backbone}; weights must be a file of them")
    return find()
