"""What every loss keeps, over the registry."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rll_tf.losses import LOSSES
from tests.losses.batches import BATCHES, batch_of
from tests.losses.helpers import uncompiled

CHANGED = {
    "ranked_list": {"alpha": 1.3, "variant": "release2019", "normalize": False},
    "triplet_semihard": {"margin": 0.7, "distance_metric": "squared-L2", "normalize": True},
    "triplet_hard": {"margin": 0.7, "soft": True, "distance_metric": "angular"},
    "lifted_struct": {"margin": 0.7},
    "n_pair": {"l2": 0.5},
    "struct_clust": {"gamma": 3.0, "normalize": False},
    "proxy_nca": {"scale": 3.0, "positive_in_denominator": True},
    "proxy_anchor": {"alpha": 16.0, "delta": 0.2},
    "multi_similarity": {"alpha": 1.0, "beta": 30.0, "threshold": 0.7, "epsilon": 0.2},
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def value_and_gradient(name, labels, outputs, **arguments):
    """The class's reduced value and its gradient, operation by operation."""
    outputs = tf.convert_to_tensor(outputs)
    with uncompiled(), tf.GradientTape() as tape:
        tape.watch(outputs)
        value = LOSSES[name](**arguments)(labels, outputs)
    return value.numpy(), tf.convert_to_tensor(tape.gradient(value, outputs)).numpy()


def model_of(width, dtype=None, names=("only",)):
    """Dense layers of fixed weights, one output or a dict of them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input([6])
    outputs = {
        name: keras.layers.Dense(width, activation="tanh", dtype=dtype, name=name)(inputs) for name in names
    }
    return keras.Model(inputs, outputs if len(names) > 1 else outputs["only"])


def features_for(labels):
    """Inputs of a model, [N, 6]."""
    return np.random.default_rng(1).normal(size=[len(labels), 6]).astype(np.float32)


def test_every_loss_has_a_batch_and_parameters():
    """A new loss is added to the tables, too."""
    assert set(BATCHES) <= set(LOSSES)
    assert set(CHANGED) <= set(LOSSES)


@every_loss
@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64", "column"])
def test_labels_of_every_width(name, kind):
    """And a column of them."""
    labels, outputs = batch_of(name)
    other = labels[:, None] if kind == "column" else labels.astype(kind)
    expected, found = (value_and_gradient(name, each, outputs) for each in (labels, other))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@every_loss
def test_labels_of_strings_and_large_ids(name):
    """Where a label is a name, not a column; ids that collide in floating point stay different."""
    if name in BATCHES and BATCHES[name].columns:
        pytest.skip("its labels are columns")
    labels, outputs = batch_of(name)
    expected, _ = value_and_gradient(name, labels, outputs)
    for other in (labels.astype(str), labels + 2**24, labels + 2**53):
        np.testing.assert_array_equal(value_and_gradient(name, other, outputs)[0], expected)


@every_loss
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_raised(name, dtype):
    """The value is float32, that of the rounded embeddings; the gradient has their type."""
    labels, outputs = batch_of(name)
    halves = tf.cast(outputs, dtype)
    value, gradient = value_and_gradient(name, labels, halves)
    expected, _ = value_and_gradient(name, labels, tf.cast(halves, tf.float32))
    assert value.dtype == np.float32
    assert gradient.dtype == dtype
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@every_loss
def test_double_precision_is_kept(name):
    """With the dtype that Keras needs to be given, and near the value in float32."""
    labels, outputs = batch_of(name)
    value, _ = value_and_gradient(name, labels, outputs.astype(np.float64), dtype="float64")
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, value_and_gradient(name, labels, outputs)[0], rtol=1e-5)


# The other losses are compiled by XLA within any graph.
NOT_COMPILED = ("struct_clust", "spectral_clust", "proxy_nca", "proxy_anchor")


@pytest.mark.parametrize(
    ("name", "jit_compile"),
    [
        *((name, False) for name in LOSSES),
        *(pytest.param(n, True, marks=() if n in NOT_COMPILED else pytest.mark.slow) for n in LOSSES),
    ],
)
def test_graphs_agree_with_eager(name, jit_compile):
    """Value and gradient, compiled by XLA or not."""
    labels, outputs = batch_of(name)

    def both(labels, outputs):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            value = LOSSES[name]()(labels, outputs)
        return value, tf.convert_to_tensor(tape.gradient(value, outputs))

    expected = value_and_gradient(name, labels, outputs)
    found = tf.function(both, jit_compile=jit_compile)(tf.constant(labels), tf.constant(outputs))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@every_loss
def test_dict_of_losses(name):
    """One an output, weighted."""
    labels, outputs = batch_of(name)
    model = model_of(outputs.shape[1], names=("low", "high"))
    loss = {level: LOSSES[name]() for level in ("low", "high")}
    model.compile("sgd", loss=loss, loss_weights={"low": 0.5, "high": 2.0}, run_eagerly=True)
    features = features_for(labels)
    with uncompiled():
        expected = {level: float(loss[level](labels, out)) for level, out in model(features).items()}
        found = model.test_on_batch(features, dict.fromkeys(loss, labels), return_dict=True)
    assert found["loss"] == pytest.approx(0.5 * expected["low"] + 2 * expected["high"], rel=1e-5)


@every_loss
def test_sample_weight_counts_or_is_refused(name):
    """Where there is a value per query, weights are Keras's; a loss of the whole batch refuses them."""
    labels, outputs = batch_of(name)
    weights = np.linspace(0, 2, len(labels)).astype(np.float32)
    with uncompiled():
        values = LOSSES[name](reduction=None)(labels, outputs)
        if values.shape.rank == 0:
            with pytest.raises(ValueError, match="takes no sample_weight"):
                LOSSES[name]()(labels, outputs, sample_weight=weights)
        else:
            found = LOSSES[name]()(labels, outputs, sample_weight=weights)
            np.testing.assert_allclose(found, np.mean(values * weights), rtol=1e-5)


@every_loss
def test_configuration_round_trip(name):
    """Parameters away from their defaults survive, and compute the same."""
    labels, outputs = batch_of(name)
    loss = LOSSES[name](**CHANGED.get(name, {}), reduction="sum", name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is LOSSES[name]
    assert again.get_config() == loss.get_config()
    assert {key: again.get_config()[key] for key in CHANGED.get(name, {})} == CHANGED.get(name, {})
    with uncompiled():
        np.testing.assert_array_equal(again(labels, outputs), loss(labels, outputs))
        if name in CHANGED:
            assert not np.allclose(loss(labels, outputs), LOSSES[name](reduction="sum")(labels, outputs))


@every_loss
def test_saved_model_reloads_and_trains_on(name, tmp_path):
    """Its next step is that of the original."""
    labels, outputs = batch_of(name)
    features, model = features_for(labels), model_of(outputs.shape[1])
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss=LOSSES[name](), run_eagerly=True)
    with uncompiled():
        model.train_on_batch(features, labels)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        for each in (model, again):
            each.train_on_batch(features, labels)
    assert again.loss.get_config() == model.loss.get_config()
    np.testing.assert_allclose(again(features), model(features), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*(no class occurs twice|a single class)")
@every_loss
@pytest.mark.parametrize(
    "kind", ["no positives", "one class", "one class more", "copies", "collapsed", "zeros"]
)
def test_odd_batches_are_finite(name, kind):
    """Value and gradient."""
    labels, outputs = batch_of(name)
    if kind == "no positives":
        labels = np.arange(len(labels))
        if name in BATCHES and BATCHES[name].columns:
            labels, outputs = labels[: outputs.shape[1]], outputs[: outputs.shape[1]]
    elif kind == "one class":
        labels = np.zeros_like(labels)
    elif kind == "one class more":
        labels = np.minimum(np.arange(len(labels)), 1)
    elif kind == "copies":
        outputs = np.repeat(outputs[::2], 2, axis=0)
    else:
        outputs = np.full_like(outputs, 0.3 if kind == "collapsed" else 0.0)
    value, gradient = value_and_gradient(name, labels, outputs)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


@every_loss
def test_normalising_makes_the_norms_count_nothing(name):
    """Of the losses that can; of the others those of cosines do it anyway."""
    labels, outputs = batch_of(name)
    if LOSSES[name]().normalize is None:
        pytest.skip("it has no such argument")
    norms = np.linspace(0.5, 2, len(labels), dtype=np.float32)[:, None]
    units = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
    expected, _ = value_and_gradient(name, labels, units, normalize=False)
    found, gradient = value_and_gradient(name, labels, norms * outputs, normalize=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(np.sum(gradient * outputs, axis=1), 0.0, atol=1e-6)


@every_loss
def test_an_embedding_that_is_not_finite_shows(name):
    """As NaN in the logs, which `TerminateOnNaN` stops at."""
    labels, outputs = batch_of(name)
    outputs[-1, 0] = np.nan
    loss = tf.function(LOSSES[name]())
    assert np.isnan(loss(tf.constant(labels), tf.constant(outputs)))
