"""A warning where a batch holds no pairs to learn from: its loss says nothing, often 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # no public API reports whether XLA compiles a graph

_ADVICE = (
    "give batches of several pictures of each of many classes, such as those of "
    "rll_tf.data.class_balanced_batches; pictures sorted by class must be sampled or shuffled"
)


def check_pairs(labels: tf.Tensor, warn: Callable[[str], None]) -> None:
    """Call `warn` with what is wrong, if labels [N] lack positive or negative pairs.

    Inside a graph the check runs when the graph does. A graph that XLA compiles can't call Python, and a
    replica of several doesn't hold the whole batch: there nothing is checked.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync > 1:
        return
    if tf.executing_eagerly():
        _, counts = np.unique(labels.numpy(), return_counts=True)
        if len(counts) < 2 or counts.max() < 2:
            warn(_message(len(counts) == counts.sum()))
        return
    graph = tf.compat.v1.get_default_graph()
    if control_flow_util.GraphOrParentsInXlaContext(graph):
        return
    ordered = tf.sort(labels)
    twice = ordered[1:] == ordered[:-1]
    all_different, single = ~tf.reduce_any(twice), tf.reduce_all(twice)

    def report() -> tf.Operation:
        return tf.numpy_function(lambda different: warn(_message(bool(different))), [all_different], [])

    tf.cond(all_different | single, report, tf.no_op)


def _message(all_different: bool) -> str:
    if all_different:
        return f"no class occurs twice in a batch, so it has no positives: {_ADVICE}"
    return f"a batch holds a single class, so it has no negatives: {_ADVICE}"
