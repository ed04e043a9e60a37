"""Where each number of a network is found in a file: the names of Caffe and of PyTorch ports."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from rll_tf.models.efficientnet_lite import EMBEDDINGS
from rll_tf.models.efficientnet_lite import weighted_layers as lite_layers
from rll_tf.models.inception_bn import HEADS, weighted_layers

# What a layer's tensors are for. A convolution's bias is folded into the batch norm that follows it; Caffe's
# stored statistics must be divided by the factor.
KERNEL, BIAS, FACTOR = "kernel", "bias", "factor"
GAMMA, BETA, MEAN, VARIANCE = "gamma", "beta", "moving_mean", "moving_variance"


@dataclasses.dataclass(frozen=True)
class Naming:
    """One origin's names.

    Args:
        origin: what the weights come from; also the preprocessing and, of Inception-BN, the layout.
        network: whose weights they are.
        layers: every layer with a kernel, and whether batch norm follows it.
        new: those of them that such files lack.
        tensors: a layer's name, and whether batch norm follows it -> what for -> the tensor's name.
        ignored: whether a tensor has nothing to do with embeddings: of a classifier, a counter.
        mean: of each channel, in the network's order, that was subtracted from pixels of 0 to 255.
        bgr: whether that order is blue first.
        scale: what the difference was divided by.
    """

    origin: str
    network: str
    layers: Collection[tuple[str, bool]]
    new: Collection[str]
    tensors: Callable[[str, bool], dict[str, str]]
    ignored: Callable[[str], bool]
    mean: tuple[float, float, float]
    bgr: bool = True
    scale: float = 1.0


def _caffe(layer: str, has_norm: bool) -> dict[str, str]:
    names = {KERNEL: f"{layer}/0"}
    if has_norm:
        names |= {BIAS: f"{layer}/1"}
        names |= {MEAN: f"{layer}/bn/0", VARIANCE: f"{layer}/bn/1", FACTOR: f"{layer}/bn/2"}
        names |= {GAMMA: f"{layer}/bn/sc/0", BETA: f"{layer}/bn/sc/1"}
    return names


def _pytorch(layer: str, has_norm: bool) -> dict[str, str]:
    name = layer.replace("/", "_")
    for suffix, number in (("double3x3a", "1"), ("double3x3b", "2"), ("double3x3_reduce", "reduce")):
        if name.endswith(suffix):
            name = f"{name.removesuffix(suffix)}double_3x3_{number}"
    names = {KERNEL: f"{name}.weight"}
    if has_norm:
        names |= {BIAS: f"{name}.bias"}
        names |= {GAMMA: f"{name}_bn.weight", BETA: f"{name}_bn.bias"}
        names |= {MEAN: f"{name}_bn.running_mean", VARIANCE: f"{name}_bn.running_var"}
    return names


def _lite(layer: str, has_norm: bool) -> dict[str, str]:
    if layer == "classifier":
        return {KERNEL: "_fc.weight", BIAS: "_fc.bias"}
    if not has_norm:
        return {KERNEL: f"{layer}.weight"}
    *block, part = layer.rsplit("_", 1)
    prefix = f"_blocks.{block[0].removeprefix('block_')}." if block else ""
    norm = {"stem": "_bn0", "head": "_bn1", "expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    names = {KERNEL: f"{prefix}_conv_{part}.weight" if not block else f"{prefix}_{part}_conv.weight"}
    names |= {GAMMA: f"{prefix}{norm}.weight", BETA: f"{prefix}{norm}.bias"}
    return names | {MEAN: f"{prefix}{norm}.running_mean", VARIANCE: f"{prefix}{norm}.running_var"}


_INCEPTION_EMBEDDINGS = {head.embedding for head in HEADS.values()}
_INCEPTION_HEADS = {name for head in HEADS.values() for name in (head.conv, head.dense) if name}
CAFFE = Naming(
    origin="caffe",
    network="Inception-BN",
    layers=weighted_layers(),
    new=_INCEPTION_EMBEDDINGS,
    tensors=_caffe,
    ignored=lambda name: name.rpartition("/")[0].endswith("classifier"),
    mean=(104.0, 117.0, 123.0),
)
PYTORCH = Naming(
    origin="pytorch",
    network="Inception-BN",
    layers=weighted_layers(),
    new=_INCEPTION_EMBEDDINGS | _INCEPTION_HEADS,
    tensors=_pytorch,
    ignored=lambda name: name.startswith("last_linear.") or name.endswith(".num_batches_tracked"),
    mean=(104.0, 117.0, 128.0),
)
LITE = Naming(
    origin="efficientnet_lite",
    network="EfficientNet-Lite",
    layers=lite_layers(),
    new=EMBEDDINGS,
    tensors=_lite,
    ignored=lambda name: name.startswith("_fc.") or name.endswith(".num_batches_tracked"),
    mean=(127.0, 127.0, 127.0),
    bgr=False,
    scale=128.0,
)


def naming_of(names: Collection[str]) -> Naming | None:
    """Whose names these are; None if they are nobody's, and so a Keras model's own."""
    for naming, first in ((CAFFE, "conv1/7x7_s2"), (PYTORCH, "conv1/7x7_s2"), (LITE, "stem")):
        if any(name in names for name in naming.tensors(first, True).values()):
            return naming
    return None
