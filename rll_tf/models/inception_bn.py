"""GoogLeNet V2, also called Inception-BN, with the taps and heads that the paper puts on it.

Section 3.4 of the paper; S. Ioffe and C. Szegedy, "Batch Normalization", 2015. Two networks go by this name,
and pretrained weights exist for both: the authors' `caffe` layout, and the PyTorch port's `pytorch` layout,
whose `pool_proj` is wider in 4c and 4d. Layers bear the names of Caffe's network with `_` for `/`, which
Keras doesn't allow: `inception_3a_double3x3a`, its batch norm `…_bn` and its ReLU `…_relu`.
"""

from __future__ import annotations

from typing import NamedTuple

import keras

from rll_tf.models.backbone import Backbone, embedding_layer
from rll_tf.models.caffe_layers import (
    AveragePooling,
    BatchNorm,
    Convolution,
    Kernel,
    MaxPooling,
    SharedConvolution,
)

LAYOUTS = ("caffe", "pytorch")
MIN_INPUT_PX = 75


class Conv(NamedTuple):
    """A convolution of the stem, followed by batch norm and ReLU."""

    name: str
    channels: int
    kernel_px: int
    stride: int
    pad: int


class Pool(NamedTuple):
    """A max pooling of the stem."""

    name: str
    kernel_px: int
    stride: int


class Block(NamedTuple):
    """An inception block: the channels of its branches, in the order in which they are concatenated.

    A block without projection halves the sides: its 3×3 convolutions have stride 2, its pooling too.
    """

    name: str
    single: int | None  # 1x1
    triple: tuple[int, int]  # 3x3_reduce (1×1), 3x3
    double: tuple[int, int]  # double3x3_reduce (1×1), double3x3a and double3x3b
    pool: str
    projection: int | None  # pool_proj (1×1)


STEM = (
    #     name           channels  kernel  stride  pad
    Conv("conv1/7x7_s2", 64, 7, 2, 3),
    Pool("pool1/3x3_s2", 3, 2),
    Conv("conv2/3x3_reduce", 64, 1, 1, 0),
    Conv("conv2/3x3", 192, 3, 1, 1),
    Pool("pool2/3x3_s2", 3, 2),
)
BLOCKS = (
    #      name  1x1   3x3         double 3x3  pool   projection
    Block("3a", 64, (64, 64), (64, 96), "ave", 32),
    Block("3b", 64, (64, 96), (64, 96), "ave", 64),
    Block("3c", None, (128, 160), (64, 96), "max", None),  # 576 channels: low
    Block("4a", 224, (64, 96), (96, 128), "ave", 128),
    Block("4b", 192, (96, 128), (96, 128), "ave", 128),
    Block("4c", 160, (128, 160), (128, 160), "ave", 96),  # pytorch: 128
    Block("4d", 96, (128, 192), (160, 192), "ave", 96),  # pytorch: 128
    Block("4e", None, (128, 192), (192, 256), "max", None),  # 1,024 channels, pytorch: 1,056: mid
    Block("5a", 352, (192, 320), (160, 224), "ave", 128),
    Block("5b", 352, (192, 320), (192, 224), "max", 128),  # 1,024 channels: high
)
PYTORCH_PROJECTIONS = {"4c": 128, "4d": 128}
TAPS = {"low": "inception_3c", "mid": "inception_4e", "high": "inception_5b"}


class Head(NamedTuple):
    """The names of a level's layers between its tap and its embedding, as in Caffe."""

    pool: str
    conv: str | None
    dense: str | None
    embedding: str


HEADS = {
    "low": Head("pool3/5x5_s3", "loss1/conv", "loss1/fc", "loss1/fc/bn/sc/fc"),
    "mid": Head("pool4/5x5_s3", "loss2/conv", "loss2/fc", "loss2/fc/bn/sc/fc"),
    "high": Head("pool5/7x7_s1/pre_fc", None, None, "pool5/7x7_s1/fc"),
}
HEAD_CHANNELS, HEAD_UNITS = 128, 1024


def inception_bn(input_shape: tuple[int, int, int] = (227, 227, 3), layout: str = "caffe") -> keras.Model:
    """The trunk, with random weights.

    Pictures are BGR, 0 to 255, less the mean of the weights' origin, which `load_pretrained` returns.

    Args:
        input_shape: (height, width, channels), each side at least 75 px.
        layout: `"caffe"` or `"pytorch"`.

    Returns:
        A model from [B, height, width, 3] to the taps `inception_3c`, [B, h/16, w/16, 576], `inception_4e`,
        [B, h/32, w/32, 1024], and `inception_5b`, [B, h/32, w/32, 1024], sides rounded up or down; 4e has
        1,056 channels in the `pytorch` layout.

    Raises:
        ValueError: an unknown layout, or a side is too small.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {layout!r}")
    if min(input_shape[:2]) < MIN_INPUT_PX:
        raise ValueError(
            f"inception_bn needs at least {MIN_INPUT_PX} px a side; got input_shape={input_shape}"
        )
    features = inputs = keras.Input(input_shape, name="pictures")
    for row in STEM:
        if isinstance(row, Conv):
            name = keras_name(row.name)
            features = _norm_relu(Convolution(*row[1:], name=name)(features), name)
        else:
            features = MaxPooling(*row[1:], name=keras_name(row.name))(features)
    taps = {}
    for block in blocks(layout):
        features = _block(features, block)
        taps[f"inception_{block.name}"] = features
    return keras.Model(inputs, {tap: taps[tap] for tap in TAPS.values()}, name="inception_bn")


def blocks(layout: str) -> tuple[Block, ...]:
    """The inception blocks of a layout."""
    if layout == "caffe":
        return BLOCKS
    return tuple(
        block._replace(projection=PYTORCH_PROJECTIONS.get(block.name, block.projection)) for block in BLOCKS
    )


def keras_name(layer: str) -> str:
    """A layer's name here, from its name in Caffe."""
    return layer.replace("/", "_")


def weighted_layers() -> list[tuple[str, bool]]:
    """Every layer with a kernel, by its name in Caffe, and whether batch norm follows it."""
    names = [row.name for row in STEM if isinstance(row, Conv)]
    for block in BLOCKS:
        branches = ["3x3_reduce", "3x3", "double3x3_reduce", "double3x3a", "double3x3b"]
        branches = ["1x1", *branches, "pool_proj"] if block.projection else branches
        names += [f"inception_{block.name}/{branch}" for branch in branches]
    names += [name for head in HEADS.values() for name in (head.conv, head.dense) if name]
    return [(name, True) for name in names] + [(head.embedding, False) for head in HEADS.values()]


def _block(features: keras.KerasTensor, block: Block) -> keras.KerasTensor:
    """One inception block, [B, h, w, c] -> [B, h', w', the branches' channels together]."""
    name, stride = f"inception_{block.name}", 2 if block.projection is None else 1
    reduced = {"3x3_reduce": block.triple[0], "double3x3_reduce": block.double[0]}
    if block.single:
        reduced["1x1"] = block.single
    # Averaging and a bias-free 1×1 convolution commute, and there are fewer channels to average after it.
    averaged = block.pool == "ave" and block.projection
    if averaged:
        reduced["pool_proj"] = averaged
    kernels = [Kernel(channels, name=f"{name}_{branch}")(features) for branch, channels in reduced.items()]
    shared = SharedConvolution(name=f"{name}_shared")([features, *kernels])
    branch = dict(zip(reduced, shared, strict=True))

    def conv(source: keras.KerasTensor, kind: str, channels: int, stride: int = 1) -> keras.KerasTensor:
        source = Convolution(channels, 3, stride, 1, name=f"{name}_{kind}")(source)
        return _norm_relu(source, f"{name}_{kind}")

    outputs = []
    if block.single:
        outputs.append(_norm_relu(branch["1x1"], f"{name}_1x1"))
    triple = _norm_relu(branch["3x3_reduce"], f"{name}_3x3_reduce")
    outputs.append(conv(triple, "3x3", block.triple[1], stride))
    double = _norm_relu(branch["double3x3_reduce"], f"{name}_double3x3_reduce")
    double = conv(double, "double3x3a", block.double[1])
    outputs.append(conv(double, "double3x3b", block.double[1], stride))
    if averaged:
        pooled = AveragePooling(3, 1, 1, name=f"{name}_pool")(branch["pool_proj"])
        outputs.append(_norm_relu(pooled, f"{name}_pool_proj"))
    elif block.projection:
        pooled = MaxPooling(3, 1, 1, name=f"{name}_pool")(features)
        projected = Convolution(block.projection, name=f"{name}_pool_proj")(pooled)
        outputs.append(_norm_relu(projected, f"{name}_pool_proj"))
    else:
        # From an odd side Caffe's convolution makes one cell more than its pooling, and its network can't be
        # built; a pad of 1 there lets any input size through, and changes nothing for Caffe's sizes.
        odd = tuple(side % 2 for side in features.shape[1:3])
        outputs.append(MaxPooling(3, 2, odd, name=f"{name}_pool")(features))
    return keras.layers.Concatenate(name=f"{name}_output")(outputs)


def _norm_relu(features: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.ReLU(name=f"{name}_relu")(BatchNorm(name=f"{name}_bn")(features))


def _head(level: str, features: keras.KerasTensor, embedding_dim: int) -> keras.KerasTensor:
    """From a tap [B, h, w, c] to an embedding before normalisation, [B, embedding_dim].

    Low and mid are GoogLeNet's auxiliary heads, their classifiers replaced; high is global average pooling.
    """
    head = HEADS[level]
    pool = keras_name(head.pool)
    if head.conv is None or head.dense is None:
        features = keras.layers.GlobalAveragePooling2D(name=pool)(features)
    else:
        conv, dense = keras_name(head.conv), keras_name(head.dense)
        features = AveragePooling(5, 3, name=pool)(features)
        features = _norm_relu(Convolution(HEAD_CHANNELS, name=conv)(features), conv)
        features = keras.layers.Flatten(name=f"{dense}_flatten")(features)
        features = keras.layers.Dense(HEAD_UNITS, use_bias=False, kernel_initializer="he_normal", name=dense)(
            features
        )
        features = _norm_relu(features, dense)
    return embedding_layer(keras_name(head.embedding), features, embedding_dim)


INCEPTION_BN = Backbone(
    trunk=inception_bn,
    taps=TAPS,
    head=_head,
    input_shape=(227, 227, 3),
    embedding_dim=512,
    layouts=LAYOUTS,
    new_layers={level: (keras_name(head.embedding),) for level, head in HEADS.items()},
)
