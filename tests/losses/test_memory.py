"""Ranked List Loss with the embeddings of earlier steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rll_tf import RankedListLoss
from rll_tf.losses import ranked_list_loss

SIZE, BATCH = 20, 12


def batches(count=5, dtype=np.float32):
    """Labels [12] and embeddings [12, 6] of unit norm."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        embeddings = rng.normal(size=[BATCH, 6])
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        found.append((np.arange(BATCH) // 3 + rng.integers(3), embeddings.astype(dtype)))
    return found


def by_hand(data, start):
    """The mean loss and the gradient of each batch, with the 20 embeddings before it from step `start` on."""
    found = []
    for step, (labels, embeddings) in enumerate(data):
        before = (
            [np.concatenate([batch[part] for batch in data[:step]])[-SIZE:] for part in (0, 1)]
            if step
            else []
        )
        queries = tf.constant(embeddings)
        with tf.GradientTape() as tape:
            tape.watch(queries)
            value = tf.reduce_mean(
                ranked_list_loss(labels, queries, gallery=tuple(before) if step >= start else None)
            )
        found.append((value.numpy(), tape.gradient(value, queries).numpy()))
    return found


def of_loss(loss, data, wrap=lambda step: step):
    """The same, of a Keras loss."""

    def step(labels, embeddings):
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss(labels, embeddings)
        return value, tape.gradient(value, embeddings)

    step = wrap(step)
    return [[part.numpy() for part in step(tf.constant(labels), tf.constant(rows))] for labels, rows in data]


def assert_equal(found, expected):
    """Of every step."""
    for (value, gradient), (other_value, other_gradient) in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other_value, rtol=1e-5)
        np.testing.assert_allclose(gradient, other_gradient, atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda step: step, tf.function, tf.function(jit_compile=True)])
@pytest.mark.parametrize("start", [0, 4])
def test_queries_are_compared_with_the_last_embeddings(wrap, start):
    """Exactly as with a gallery of those that there are, from a step on."""
    loss = RankedListLoss(memory=SIZE, memory_start=start, normalize=False)
    assert_equal(of_loss(loss, batches(), wrap), by_hand(batches(), max(1, start)))


def test_a_memory_smaller_than_a_batch_keeps_its_end():
    """Half precision goes in as in every loss."""
    data = batches(2, np.float16)
    found = of_loss(RankedListLoss(memory=5, normalize=False), data)
    (labels, embeddings), (queries, rows) = data
    expected = tf.reduce_mean(ranked_list_loss(queries, rows, gallery=(labels[-5:], embeddings[-5:])))
    np.testing.assert_allclose(found[1][0], expected, rtol=1e-5)


def test_what_is_kept_can_be_taken_up_again():
    """A loss that takes up another's state goes on as it would have."""
    data = batches()
    whole = of_loss(RankedListLoss(memory=SIZE), data)
    first, second = (RankedListLoss(memory=SIZE) for _ in range(2))
    of_loss(first, data[:3])
    second.cross_batch_memory.restore(first.cross_batch_memory.state())
    assert_equal(of_loss(second, data[3:]), whole[3:])
    with pytest.raises(ValueError, match="must hold 7 embeddings: got 20"):
        RankedListLoss(memory=7).cross_batch_memory.restore(first.cross_batch_memory.state())


def test_fit_trains_with_a_memory():
    """In mixed precision; the configuration makes a loss with an empty memory."""
    inputs = keras.Input([6], dtype="float16")
    model = keras.Model(inputs, keras.layers.Dense(4, dtype="mixed_float16")(inputs))
    loss = RankedListLoss(memory=SIZE)
    model.compile("sgd", loss=loss)
    data = batches(6, np.float16)
    dataset = tf.data.Dataset.from_tensor_slices(tuple(map(np.stack, zip(*data, strict=True))))
    model.fit(dataset.map(lambda labels, rows: (rows, labels)), verbose=0, shuffle=False)
    assert loss.cross_batch_memory.state()["steps"] == 6
    again = RankedListLoss.from_config(loss.get_config())
    assert (again.memory, again.cross_batch_memory.state()) == (SIZE, {})


def test_bounds_of_a_memory():
    """The message says what must hold."""
    with pytest.raises(ValueError, match="memory must be at least 1 embedding: got -1"):
        RankedListLoss(memory=-1)
    with pytest.raises(ValueError, match="memory_start must not be negative: got -2"):
        RankedListLoss(memory=5, memory_start=-2)
