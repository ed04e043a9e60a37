"""A workaround for Keras's `fit` under `tf.distribute.MultiWorkerMirroredStrategy`.

https://github.com/keras-team/keras/issues/20585: in Keras 3.8 to 3.15, `fit` builds losses and metrics from
a first batch, which it averages over the replicas and can't where each is in another process; and it averages
each step's metrics, which are scalars, along axis 0. This file can go, and the call of it, when
`tests/training/test_distribution.py` passes without it under the oldest Keras that setup.cfg allows.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def prepare_fit(model: keras.Model, strategy: tf.distribute.Strategy, batch: Any) -> None:
    """Let `model.fit` train under a strategy of several workers; call it in the strategy's scope.

    Args:
        model: compiled in that scope.
        strategy: with several workers.
        batch: what a replica gets in a step, as `tf.TensorSpec`s: (inputs, targets).
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
