"""A cross-batch memory: the embeddings of earlier steps, as further gallery."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from rll_tf.losses.gallery import gather
from rll_tf.losses.inputs import as_batch

Loss = Callable[[tuple[tf.Tensor, ...]], tf.Tensor]


class CrossBatchMemory:
    """The last `size` labels and embeddings that went through a loss (Wang et al., CVPR 2020).

    They are compared with once `start` steps are over: at first embeddings move fast, and old ones say
    little. Under a strategy all replicas hold the same memory, of their global batches.

    Args:
        size: how many embeddings are kept, at least 1.
        start: the first step that uses them.

    Raises:
        ValueError: a number is out of bounds.
    """

    def __init__(self, size: int, start: int = 0) -> None:
        if size < 1:
            raise ValueError(f"memory must be at least 1 embedding: got {size}")
        if start < 0:
            raise ValueError(f"memory_start must not be negative: got {start}")
        self.size, self.start = size, start
        self._variables: dict[str, tf.Variable] = {}

    def compare(self, labels: tf.Tensor, embeddings: tf.Tensor, loss: Loss) -> tf.Tensor:
        """`loss` of a batch, given the memory as its further gallery; then the batch is kept."""
        labels, embeddings = as_batch(labels, embeddings)
        if not self._variables:
            self._build(embeddings.shape[-1], embeddings.dtype)
        kept = self._variables
        is_filled = tf.range(self.size, dtype=tf.int64) >= self.size - kept["seen"]
        counts = is_filled & (kept["steps"] >= self.start)
        values = loss((kept["labels"].value(), kept["embeddings"].value(), counts))
        with tf.control_dependencies([values]):
            self._keep(gather(labels), tf.stop_gradient(gather(embeddings)))
        return values

    def state(self) -> dict[str, np.ndarray]:
        """What is kept, by name; empty before the first batch."""
        return {name: variable.numpy() for name, variable in self._variables.items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take up what `state` returned.

        Raises:
            ValueError: it is of a memory of another size.
        """
        if not state:
            return
        embeddings = state["embeddings"]
        if len(embeddings) != self.size:
            raise ValueError(f"the memory must hold {self.size} embeddings: got {len(embeddings)}")
        if not self._variables:
            self._build(embeddings.shape[1], tf.as_dtype(embeddings.dtype))
        for name, variable in self._variables.items():
            variable.assign(state[name])

    def _build(self, dim: int, dtype: tf.DType) -> None:
        starts = {
            "labels": np.zeros([self.size], np.int64),
            "embeddings": np.zeros([self.size, dim], dtype.as_numpy_dtype),
            "seen": np.int64(0),
            "steps": np.int64(0),
        }
        # Every replica would assign the same.
        same = tf.VariableAggregation.ONLY_FIRST_REPLICA
        with tf.init_scope():
            self._variables = {
                name: tf.Variable(value, trainable=False, aggregation=same, name=f"memory_{name}")
                for name, value in starts.items()
            }

    def _keep(self, labels: tf.Tensor, embeddings: tf.Tensor) -> None:
        count = tf.minimum(tf.shape(labels)[0], self.size)
        for name, new in (("labels", labels), ("embeddings", embeddings)):
            kept = self._variables[name]
            kept.assign(tf.concat([kept[count:], new[-count:]], axis=0))
        self._variables["seen"].assign_add(tf.cast(tf.shape(labels)[0], tf.int64))
        self._variables["steps"].assign_add(1)
