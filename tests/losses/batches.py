"""A batch for each loss of the registry: what it takes besides labels differs."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Batch:
    """Sizes of a batch."""

    count: int = 24
    classes: int = 8
    width: int = 5
    columns: bool = False  # the outputs are cosines, and a label is the number of its proxy's column


# Only the losses that take others than embeddings [24, 5] of 8 classes.
BATCHES: dict[str, Batch] = {
    "struct_clust": Batch(count=12, classes=3),  # it searches, for each class
    "proxy_nca": Batch(columns=True),
    "proxy_anchor": Batch(columns=True),
}


def batch_of(name):
    """Labels [N] and float32 outputs [N, width] for a loss, classes in an order that splits them."""
    sizes = BATCHES.get(name, Batch())
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(sizes.count) % sizes.classes)
    width = sizes.classes if sizes.columns else sizes.width
    outputs = rng.normal(size=[sizes.classes, width])[labels] + rng.normal(size=[sizes.count, width])
    return labels, (np.tanh(outputs) if sizes.columns else 0.5 * outputs).astype(np.float32)
