"""The peers of `benchmarks/network.py`: the same networks in PyTorch, one module per row of our tables.

Inception-BN is as the public port: a biased convolution, batch norm and an in-place ReLU for each row,
pooling that rounds up, branches concatenated. EfficientNet-Lite0 has frozen batch norm, as there. The heads
are the same too, and the loss is the formula written out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rll_tf.models.caffe_layers import same_pads
from rll_tf.models.efficientnet_lite import (
    EPSILON,
    SIZES,
    STAGE_OF_TAP,
    STEM_CHANNELS,
    stages,
)
from rll_tf.models.efficientnet_lite import HEAD_CHANNELS as LITE_HEAD_CHANNELS
from rll_tf.models.efficientnet_lite import Block as LiteBlock
from rll_tf.models.inception_bn import HEAD_CHANNELS, HEAD_UNITS, STEM, Block, Conv, blocks

try:
    import torch
    from torch import nn
except ImportError:
    torch = None

ALPHA, MARGIN, TEMPERATURE = 1.2, 0.4, 10.0
EMBEDDING_DIM = 512


def peer_steps(backbone: str, pictures: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], Any]]:
    """What is timed of the peer, float32 and with PyTorch's default threads: name -> one step of it.

    Args:
        backbone: `inception_bn` or `efficientnet_lite0`.
        pictures: [N, px, px, 3] float32.
        labels: [N] class of each.
    """
    torch.manual_seed(0)
    network, embed = (
        (_network(), _embed) if backbone == "inception_bn" else (_lite(len(pictures[0])), _embed_lite)
    )
    batch = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    embed(network, batch[:2])  # the flattened layers learn their widths
    same = torch.from_numpy(labels[:, None] == labels[None])
    new = [head[-1].weight for head in network["heads"].values()]
    rest = [weight for weight in network.parameters() if all(weight is not one for one in new)]
    groups = [{"params": rest}, {"params": new, "lr": 1e-2}]
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, weight_decay=1e-5)

    def training() -> float:
        network.train(backbone == "inception_bn")
        optimizer.zero_grad()
        loss = sum(_loss(embedding, same) for embedding in embed(network, batch).values())
        loss.backward()
        optimizer.step()
        return loss.item()

    def inference() -> np.ndarray:
        network.eval()
        with torch.inference_mode():
            return list(embed(network, batch).values())[-1].numpy()

    return {"inference float32 torch": inference, "training float32 torch": training}


def _lite(px: int) -> Any:
    """EfficientNet-Lite0: the stem, the stages by number, the head, and the three heads of embeddings."""
    channels, side = STEM_CHANNELS, -(-px // 2)
    parts = {"stem": _lite_conv(3, channels, px, 3, 2)}
    widths = {}
    for number, stage in enumerate(stages(SIZES["efficientnet_lite0"])):
        modules = []
        for block in stage:
            modules.append(_lite_block(channels, block, side))
            channels, side = block.channels, -(-side // block.stride)
        parts[str(number)] = nn.Sequential(*modules)
        widths[number] = channels
    parts["head"] = _lite_conv(channels, LITE_HEAD_CHANNELS, side)
    taps = {str(stage): widths[stage] for stage in STAGE_OF_TAP.values()} | {"head": LITE_HEAD_CHANNELS}
    heads = {
        tap: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, EMBEDDING_DIM, bias=False))
        for tap, width in taps.items()
    }
    network = nn.ModuleDict({**parts, "heads": nn.ModuleDict(heads)})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    return network


def _lite_conv(
    inputs: int,
    channels: int,
    side: int,
    kernel_px: int = 1,
    stride: int = 1,
    groups: int = 1,
    relu: bool = True,
) -> Any:
    """Padded as TensorFlow's `SAME` does, which at stride 2 is not the same on both ends."""
    before, after = same_pads(side, kernel_px, stride)
    pads = [] if before == after else [nn.ZeroPad2d((before, after, before, after))]
    pad = before if before == after else 0
    convolution = nn.Conv2d(inputs, channels, kernel_px, stride, pad, groups=groups, bias=False)
    activation = [nn.ReLU6(inplace=True)] if relu else []
    return nn.Sequential(*pads, convolution, nn.BatchNorm2d(channels, eps=EPSILON), *activation)


def _lite_block(channels: int, block: LiteBlock, side: int) -> Any:
    wide = channels * block.expansion
    expand = [_lite_conv(channels, wide, side)] if block.expansion > 1 else []
    depthwise = _lite_conv(wide, wide, side, block.kernel_px, block.stride, groups=wide)
    project = _lite_conv(wide, block.channels, -(-side // block.stride), relu=False)
    return nn.Sequential(*expand, depthwise, project)


def _embed_lite(network: Any, pictures: Any) -> dict[str, Any]:
    """The embeddings by tap, [N, 512] each, of unit norm."""
    features, embeddings = network["stem"](pictures), {}
    for name, part in network.items():
        if name in ("stem", "heads"):
            continue
        for block in part if name != "head" else [part]:
            outputs = block(features)
            features = outputs + features if outputs.shape == features.shape else outputs
        if name in network["heads"]:
            embeddings[name] = nn.functional.normalize(network["heads"][name](features))
    return embeddings


def _network() -> Any:
    """The stem, the blocks by name, and the three heads."""
    stem, channels = [], 3
    for row in STEM:
        if isinstance(row, Conv):
            stem.append(_conv(channels, row.channels, row.kernel_px, row.stride, row.pad))
            channels = row.channels
        else:
            stem.append(nn.MaxPool2d(row.kernel_px, row.stride, ceil_mode=True))
    parts, heads = {"stem": nn.Sequential(*stem)}, {}
    for block in blocks("caffe"):
        parts[block.name] = nn.ModuleList(_branches(channels, block))
        # A block without projection passes its input's channels on, pooled.
        passed = block.projection or channels
        channels = (block.single or 0) + block.triple[1] + block.double[1] + passed
        if block.name in ("3c", "4e"):
            dense = [nn.LazyLinear(HEAD_UNITS, bias=False), nn.BatchNorm1d(HEAD_UNITS), nn.ReLU(inplace=True)]
            heads[block.name] = nn.Sequential(
                nn.AvgPool2d(5, 3, ceil_mode=True),
                _conv(channels, HEAD_CHANNELS, 1),
                nn.Flatten(),
                *dense,
                nn.Linear(HEAD_UNITS, EMBEDDING_DIM, bias=False),
            )
    last = nn.Linear(channels, EMBEDDING_DIM, bias=False)
    heads["5b"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    return nn.ModuleDict({**parts, "heads": nn.ModuleDict(heads)})


def _conv(inputs: int, channels: int, kernel_px: int, stride: int = 1, pad: int = 0) -> Any:
    convolution = nn.Conv2d(inputs, channels, kernel_px, stride, pad)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _branches(channels: int, block: Block) -> list[Any]:
    """A block's branches, in the order in which they are concatenated."""
    stride = 2 if block.projection is None else 1
    branches = [_conv(channels, block.single, 1)] if block.single else []
    reduced, wide = block.triple
    branches.append(nn.Sequential(_conv(channels, reduced, 1), _conv(reduced, wide, 3, stride, 1)))
    reduced, wide = block.double
    double = _conv(channels, reduced, 1), _conv(reduced, wide, 3, 1, 1), _conv(wide, wide, 3, stride, 1)
    branches.append(nn.Sequential(*double))
    if block.projection is None:
        branches.append(nn.MaxPool2d(3, 2, ceil_mode=True))
    else:
        pool = nn.AvgPool2d if block.pool == "ave" else nn.MaxPool2d
        branches.append(nn.Sequential(pool(3, 1, 1), _conv(channels, block.projection, 1)))
    return branches


def _embed(network: Any, pictures: Any) -> dict[str, Any]:
    """The embeddings by tap, [N, 512] each, of unit norm."""
    features, embeddings = network["stem"](pictures), {}
    for block in blocks("caffe"):
        features = torch.cat([branch(features) for branch in network[block.name]], 1)
        if block.name in network["heads"]:
            embedding = network["heads"][block.name](features)
            embeddings[block.name] = nn.functional.normalize(embedding)
    return embeddings


def _loss(embeddings: Any, same: Any) -> Any:
    """The paper's loss, [N, D] and [N, N] -> one number; the gradient flows through each pair's both ends."""
    distances = torch.cdist(embeddings, embeddings)
    itself = torch.eye(len(embeddings), dtype=torch.bool)
    far = torch.relu(distances - (ALPHA - MARGIN)) * (same & ~itself)
    pulled = far.sum(1) / (far > 0).sum(1).clamp(min=1)
    near = torch.relu(ALPHA - distances) * ~same
    weights = torch.exp(TEMPERATURE * near.detach()) * (near > 0)
    pushed = (weights * near).sum(1) / weights.sum(1).clamp(min=1e-9)
    return (pulled + pushed).mean()
