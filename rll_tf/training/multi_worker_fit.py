"""A workaround for Keras's `fit` under `tf.distribute.MultiWorkerMirroredStrategy`.

https://github.com/keras-team/keras/issues/20585: in Keras 3.8 to 3.15, `fit` builds losses and metrics from
a first batch, which it averages over the replicas and can't where each is in another process; it averages
each step's metrics, which are scalars, along axis 0; and before 3.10 it doesn't take a dataset that
`distribute_datasets_from_function` made. This file can go, and the call of it, when
`tests/training/test_distribution.py` passes without it under the oldest Keras that setup.cfg allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.src.trainers.data_adapters.tf_dataset_adapter import TFDatasetAdapter  # has no public name


def prepare_fit(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    batch: Any,
    batches_of: Callable[[tuple[int, int]], tf.data.Dataset],
) -> TFDatasetAdapter:
    """Let `model.fit` train under a strategy of several workers; call it in the strategy's scope.

    Args:
        model: compiled in that scope.
        strategy: with several workers.
        batch: what a replica gets in a step, as `tf.TensorSpec`s: (pictures [n, ...], targets).
        batches_of: from (i, w) to the batches without end of worker i of w.

    Returns:
        What `fit` takes in place of a dataset.
    """
    model._symbolic_build(data_batch=batch)
    model._maybe_symbolic_build = lambda **_: None

    @tf.autograph.experimental.do_not_convert
    def step(data: Any) -> Any:
        logs = model.train_step(data)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, logs)

    @tf.function(jit_compile=model.jit_compile)
    @tf.autograph.experimental.do_not_convert
    def step_of_all(data: Any) -> Any:
        logs = strategy.run(step, args=(data,))
        return tf.nest.map_structure(lambda each: strategy.experimental_local_results(each)[0], logs)

    # `fit` makes its own only where there is none.
    model.train_function = tf.function(
        tf.autograph.experimental.do_not_convert(lambda iterator: step_of_all(iterator.get_next()))
    )

    def batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        part = batches_of((context.input_pipeline_id, context.num_input_pipelines))
        # One after the other for the devices of this worker. That they have no end saves asking all workers
        # before each step.
        without_end = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        return part.rebatch(batch[0].shape[0]).apply(without_end).prefetch(tf.data.AUTOTUNE)

    return TFDatasetAdapter(strategy.distribute_datasets_from_function(batches))
