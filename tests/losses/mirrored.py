"""One device against several, on the same global batches: `python mirrored.py REPLICAS SETTINGS LOSS ...`.

A process of its own, since logical devices are set before TensorFlow starts and a process can hold one
strategy with collectives. Prints for each setting the largest differences in the losses of five steps
of SGD with momentum, in the weights after them, and in the values and gradients of one batch. SETTINGS are
`all`, or `some`: without the other variant and one of the labels' types.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from rll_tf import RankedListLoss
from rll_tf.losses import LOSSES
from tests.losses.batches import batch_of
from tests.losses.helpers import uncompiled

STEPS = 5
FEATURES = 6
BATCH = 24


def global_batches():
    """Five batches [24, 6] of 8 classes x 3, in an order that splits classes over replicas."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([rng.permutation(np.arange(BATCH) // 3) for _ in range(STEPS)])
    centres = rng.normal(size=[8, FEATURES])
    features = centres[labels] + rng.normal(size=[len(labels), FEATURES])
    return features.astype(np.float32), labels + 2**53


def network():
    """A small network with fixed weights."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(8, activation="tanh"),
        keras.layers.Dense(4),
        keras.layers.UnitNormalization(),
    ]
    return keras.Sequential([keras.Input([FEATURES]), *layers])


def train(strategy, jit_compile, **arguments):
    """Losses of each step and the weights after the last, by Keras `fit`."""
    features, labels = global_batches()
    with strategy.scope():
        model = network()
        optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
        model.compile(optimizer, loss=RankedListLoss(**arguments), jit_compile=jit_compile)
    data = tf.data.Dataset.from_tensor_slices((features, labels)).batch(BATCH, drop_remainder=True)
    losses = []
    keep = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: losses.append(logs["loss"]))
    model.fit(data, verbose=0, shuffle=False, callbacks=[keep])
    return [np.array(losses), np.concatenate([each.numpy().ravel() for each in model.trainable_variables])]


def gradient(strategy, label_type=np.int64, **arguments):
    """The first batch's values and the gradient of every embedding, by `strategy.run`."""
    features, labels = (each[:BATCH] for each in global_batches())
    labels = (labels if label_type == np.int64 else 5 + labels % 2**53).astype(label_type)
    replicas = strategy.num_replicas_in_sync
    loss = RankedListLoss(reduction=None, **arguments)

    def step(embeddings, labels):
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            values = loss(labels, embeddings)
            total = tf.reduce_sum(values) / BATCH
        return values, tape.gradient(total, embeddings)

    share = BATCH // replicas

    def part(values):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                values[
                    context.replica_id_in_sync_group * share : (context.replica_id_in_sync_group + 1) * share
                ]
            )
        )

    results = tf.function(lambda *each: strategy.run(step, each))(part(features), part(labels))
    return [
        np.concatenate([piece.numpy() for piece in strategy.experimental_local_results(each)])
        for each in results
    ]


def reduced(strategy, name):
    """The default loss of a registry's name, summed over replicas, and the gradient of every output."""
    labels, outputs = batch_of(name)
    share = len(labels) // strategy.num_replicas_in_sync
    loss = LOSSES[name]()

    def step(labels, outputs):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            value = loss(labels, outputs)
        return value, tf.convert_to_tensor(tape.gradient(value, outputs))

    def part(array):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[context.replica_id_in_sync_group * share :][:share])
        )

    values, gradients = tf.function(lambda *each: strategy.run(step, each))(part(labels), part(outputs))
    pieces = [strategy.experimental_local_results(each) for each in (values, gradients)]
    return [
        np.sum([each.numpy() for each in pieces[0]]),
        np.concatenate([each.numpy() for each in pieces[1]]),
    ]


def largest(a, b):
    """The largest difference, relative to the largest number."""
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def main():
    """Compare and print."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1])
    )
    one, found = tf.distribute.get_strategy(), {}
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(int(sys.argv[1]))])
    is_all = sys.argv[2] == "all"
    for setting in ({}, {"global_gallery": False}, {"memory": 30}, *[{"variant": "release2019"}] * is_all):
        with uncompiled():
            alone = gradient(one, **setting)
        together = gradient(strategy, **setting)
        names = ["values", "gradient"]
        if not setting or "memory" in setting:
            alone += train(one, False, **setting)
            together += train(strategy, "auto", **setting)
            names += ["losses", "weights"]
        differences = map(largest, together, alone)
        found[" ".join(map(str, setting.values()))] = dict(zip(names, differences, strict=True))
    with uncompiled():
        alone = gradient(one)
    for label_type in (str, *[np.uint8] * is_all):
        differences = map(largest, gradient(strategy, label_type), alone)
        found[label_type.__name__] = dict(zip(["values", "gradient"], differences, strict=True))
    for name in sys.argv[3:]:
        with uncompiled():
            alone = reduced(one, name)
        differences = map(largest, reduced(strategy, name), alone)
        found[name] = dict(zip(["value", "gradient"], differences, strict=True))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
