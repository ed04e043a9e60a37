"""Where each number of Inception-BN is found in a file: Caffe's names and the PyTorch port's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

# What a layer's tensors are for. A convolution's bias is folded into the batch norm that follows it; Caffe's
# stored statistics must be divided by the factor.
KERNEL, BIAS, FACTOR = "kernel", "bias", "factor"
GAMMA, BETA, MEAN, VARIANCE = "gamma", "beta", "moving_mean", "moving_variance"


@dataclasses.dataclass(frozen=True)
class Naming:
    """One origin's names.

    Args:
        origin: what the weights come from; also the layout that such files are of.
        tensors: a layer's name in Caffe, and whether batch norm follows it -> what for -> the tensor's name.
        ignored: whether a tensor has nothing to do with embeddings: of a classifier, a counter.
        has_heads: whether such files hold the auxiliary heads.
        mean: of each channel, blue, green and red, that was subtracted from pixels of 0 to 255.
    """

    origin: str
    tensors: Callable[[str, bool], dict[str, str]]
    ignored: Callable[[str], bool]
    has_heads: bool
    mean: tuple[float, float, float]


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


CAFFE = Naming(
    origin="caffe",
    tensors=_caffe,
    ignored=lambda name: name.rpartition("/")[0].endswith("classifier"),
    has_heads=True,
    mean=(104.0, 117.0, 123.0),
)
PYTORCH = Naming(
    origin="pytorch",
    tensors=_pytorch,
    ignored=lambda name: name.startswith("last_linear.") or name.endswith(".num_batches_tracked"),
    has_heads=False,
    mean=(104.0, 117.0, 128.0),
)


def naming_of(names: Collection[str]) -> Naming | None:
    """Whose names these are; None if they are neither's, and so a Keras model's own."""
    first = "conv1/7x7_s2"
    for naming in (CAFFE, PYTORCH):
        known = naming.tensors(first, True).values()
        if any(name in names for name in known):
            return naming
    return None
