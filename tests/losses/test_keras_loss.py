"""The contract of a Keras loss, and what Keras does to labels on the way."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import rll_tf
from rll_tf.losses import RankedListLoss, ranked_list_loss
from tests.losses.test_ranked_list import batch

ARGUMENTS = {
    "alpha": 1.3,
    "margin": 0.5,
    "temperature": 7.0,
    "variant": "release2019",
    "positive_temperature": 2.0,
    "balance": 0.3,
    "block_size": 16,
    "global_gallery": False,
    "normalize": False,
}

# What XLA compiles is the same as in `test_contract.py` and `test_ranked_list.py`.
JIT = [False, pytest.param(True, marks=pytest.mark.slow)]


def model_of(levels=None, dtype=None):
    """Dense layers of fixed weights, one output or a dict of them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input([7])
    outputs = {level: keras.layers.Dense(5, dtype=dtype, name=level)(inputs) for level in levels or ["only"]}
    return keras.Model(inputs, outputs if levels else outputs["only"])


def test_public_names():
    """The class is found where users are told to look."""
    assert rll_tf.RankedListLoss is rll_tf.losses.RankedListLoss is RankedListLoss


def test_configuration_round_trip():
    """Every argument survives serialisation by Keras."""
    loss = RankedListLoss(**ARGUMENTS, reduction="sum", name="low", dtype="float64")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is RankedListLoss
    assert again.get_config() == loss.get_config()
    assert {key: again.get_config()[key] for key in ARGUMENTS} == ARGUMENTS
    assert (again.reduction, again.name, again.dtype) == ("sum", "low", "float64")


def test_a_block_size_of_numpy_can_be_saved():
    """Whatever integer it came as, it is JSON's."""
    loss = RankedListLoss(block_size=np.int64(16))
    assert json.loads(json.dumps(loss.get_config()))["block_size"] == 16


def test_defaults_are_the_papers():
    """Alpha 1.2, m 0.4, T 10, and positional in that order."""
    assert (RankedListLoss().alpha, RankedListLoss().margin, RankedListLoss().temperature) == (1.2, 0.4, 10.0)
    loss = RankedListLoss(1.4, 0.2, 5.0)
    assert (loss.alpha, loss.margin, loss.temperature) == (1.4, 0.2, 5.0)


def test_arguments_reach_the_function():
    """The class computes what the function computes with the same arguments."""
    labels, embeddings = batch()
    arguments = {name: value for name, value in ARGUMENTS.items() if name != "normalize"}
    expected = ranked_list_loss(labels, embeddings, **arguments)
    np.testing.assert_array_equal(RankedListLoss(**ARGUMENTS, reduction=None)(labels, embeddings), expected)


def unit(embeddings):
    """Each row over its norm."""
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def gradient_of(loss, labels, embeddings):
    """By the embeddings."""
    embeddings = tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(labels, embeddings)
    return tape.gradient(value, embeddings).numpy()


def test_embeddings_are_normalised():
    """By default, whatever their norms; a row of zeros stays."""
    labels, embeddings = batch()
    expected = RankedListLoss(normalize=False)(labels, unit(embeddings))
    for scale in (0.1, 1.0, np.geomspace(1e-3, 1e3, 40, dtype=np.float32)[:, None]):
        np.testing.assert_allclose(RankedListLoss()(labels, scale * embeddings), expected, rtol=1e-5)
    embeddings[3] = 0.0
    others = np.copy(embeddings)
    others[np.arange(40) != 3] = unit(embeddings[np.arange(40) != 3])
    expected = RankedListLoss(normalize=False)(labels, others)
    np.testing.assert_allclose(RankedListLoss()(labels, embeddings), expected, rtol=1e-5)
    assert np.all(np.isfinite(gradient_of(RankedListLoss(), labels, embeddings)))


def test_unit_embeddings_lose_the_part_along_themselves():
    """Of the gradient; a normalising layer loses it anyway, so the weights before it see no difference."""
    labels, embeddings = batch()
    plain, found = (
        gradient_of(RankedListLoss(normalize=each), labels, unit(embeddings)) for each in (False, True)
    )
    along = np.sum(plain * unit(embeddings), axis=1, keepdims=True) * unit(embeddings)
    np.testing.assert_allclose(found, plain - along, atol=1e-6 * np.abs(plain).max())


def test_the_gradient_through_the_norm_is_the_slope():
    """A query's own: the others are constants, and with T = 0 the weights are."""
    labels, embeddings = batch()
    embeddings = embeddings.astype(np.float64)
    loss = RankedListLoss(temperature=0.0, reduction=None, dtype="float64")
    gradient = gradient_of(
        RankedListLoss(temperature=0.0, reduction="sum", dtype="float64"), labels, embeddings
    )
    direction = np.random.default_rng(3).normal(size=embeddings.shape[1])
    for query in (0, 7, 20):
        moved = [embeddings.copy(), embeddings.copy()]
        moved[0][query] += 1e-6 * direction
        moved[1][query] -= 1e-6 * direction
        above, below = (loss(labels, each).numpy()[query] for each in moved)
        np.testing.assert_allclose(gradient[query] @ direction, (above - below) / 2e-6, rtol=1e-4)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", None])
@pytest.mark.parametrize("weighted", [False, True])
def test_reductions_and_weights_are_those_of_keras(reduction, weighted):
    """Every reduction, with and without sample weights, is what Keras makes of the same values."""
    labels, embeddings = batch()
    values = ranked_list_loss(labels, unit(embeddings))
    weights = np.linspace(0, 2, 40, dtype=np.float32) if weighted else None
    found = RankedListLoss(reduction=reduction)(labels, embeddings, sample_weight=weights)
    # |v - 0| of one column is v itself.
    absolute = keras.losses.MeanAbsoluteError(reduction=reduction)
    expected = absolute(tf.zeros([40, 1]), values[:, None], sample_weight=weights)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*no class occurs twice")
@pytest.mark.parametrize("base", [2**24, 2**53])
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_labels_stay_integers_through_fit(base, run_eagerly):
    """Trap 4: ids beyond 2^24 and 2^53 stay different on every way that Keras calls a loss."""
    embeddings = np.array([[0.0, 0.0], [0.1, 0.0]], np.float32)
    labels = np.array([base, base + 1], np.int64)
    inputs = keras.Input([2])
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    loss = RankedListLoss(normalize=False)
    model.compile("sgd", loss=loss, run_eagerly=run_eagerly, jit_compile=False)
    assert model.evaluate(embeddings, labels, verbose=0) == pytest.approx(1.1, rel=1e-6)
    assert model.evaluate(embeddings, labels[:, None], verbose=0) == pytest.approx(1.1, rel=1e-6)
    assert float(loss(labels, embeddings)) == pytest.approx(1.1, rel=1e-6)


@pytest.mark.parametrize("jit_compile", JIT)
def test_one_label_an_output(jit_compile):
    """Trap 8: a loss an output, labels keyed as the outputs are, weights applied to the right one."""
    labels, embeddings = batch()
    model = model_of(["high", "low"])
    outputs = model(embeddings)
    expected = {level: float(RankedListLoss()(labels, outputs[level])) for level in ("low", "high")}
    model.compile(
        "sgd",
        loss={"low": RankedListLoss(), "high": RankedListLoss()},
        loss_weights={"low": 0.5, "high": 2.0},
        jit_compile=jit_compile,
    )
    found = model.evaluate(
        embeddings, {"low": labels, "high": labels}, batch_size=40, verbose=0, return_dict=True
    )
    assert found["loss"] == pytest.approx(0.5 * expected["low"] + 2 * expected["high"], rel=1e-5)
    for level in ("low", "high"):
        assert found[f"{level}_loss"] == pytest.approx(expected[level], rel=1e-5)


def test_symbolic_call():
    """Keras traces the loss on a batch of unknown length."""
    graph = tf.function(RankedListLoss())
    specs = tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 5], tf.float16)
    (found,) = graph.get_concrete_function(*specs).outputs
    assert (found.shape, found.dtype) == ((), tf.float32)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains(policy):
    """Trap 7: half-precision embeddings give float32 losses and finite weights."""
    labels, embeddings = batch()
    model = model_of(dtype=policy)
    model.compile("sgd", loss=RankedListLoss(), jit_compile=False)
    assert model(embeddings).dtype == policy.removeprefix("mixed_")
    history = model.fit(embeddings, labels, batch_size=20, epochs=2, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
    assert all(np.all(np.isfinite(each)) for each in model.get_weights())


def test_a_training_step_lowers_the_loss():
    """One step of SGD along the closed-form gradient."""
    labels, embeddings = batch()
    model = model_of()
    model.compile(keras.optimizers.SGD(0.05), loss=RankedListLoss(), jit_compile=False)
    before = model.evaluate(embeddings, labels, batch_size=40, verbose=0)
    model.fit(embeddings, labels, batch_size=40, verbose=0)
    assert model.evaluate(embeddings, labels, batch_size=40, verbose=0) < before


def test_saved_model_reloads_and_trains_on(tmp_path):
    """A model saved with this loss gives equal outputs, and its next step is that of the original."""
    labels, embeddings = batch()
    model = model_of()
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9), loss=RankedListLoss(**ARGUMENTS), jit_compile=False
    )
    model.fit(embeddings, labels, batch_size=40, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(embeddings), model(embeddings))
    assert again.loss.get_config() == model.loss.get_config()
    histories = [
        each.fit(embeddings, labels, batch_size=40, verbose=0).history["loss"] for each in (model, again)
    ]
    np.testing.assert_allclose(*histories, rtol=1e-6)
    np.testing.assert_allclose(again(embeddings), model(embeddings), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit_compile", JIT)
def test_a_broken_embedding_shows_in_the_logs(jit_compile):
    """An embedding that is not finite makes the logged loss NaN, which `TerminateOnNaN` stops at."""
    labels, embeddings = batch()
    embeddings[3, 2] = np.nan
    model = model_of()
    model.compile("sgd", loss=RankedListLoss(), jit_compile=jit_compile)
    assert np.isnan(model.evaluate(embeddings, labels, batch_size=40, verbose=0))


def test_string_labels_through_keras():
    """A data set may name its classes."""
    labels, embeddings = batch()
    model = model_of()
    model.compile("sgd", loss=RankedListLoss(), jit_compile=False)
    names = tf.data.Dataset.from_tensor_slices((embeddings, labels.astype(str))).batch(40)
    numbers = tf.data.Dataset.from_tensor_slices((embeddings, labels)).batch(40)
    assert model.evaluate(names, verbose=0) == model.evaluate(numbers, verbose=0)
    model.fit(names, verbose=0, shuffle=False)


ODD_BATCHES = {
    "no class occurs twice": np.arange(40),
    "holds a single class": np.zeros(40, int),
}


@pytest.mark.parametrize("message", ODD_BATCHES)
@pytest.mark.parametrize("way", ["call", "eager fit", "fit", "strings"])
def test_a_batch_without_pairs_warns_once(message, way):
    """Trap 32: with what is wrong and what to change, whichever way Keras calls the loss."""
    labels, embeddings = ODD_BATCHES[message], batch()[1]
    loss, model = RankedListLoss(), model_of()
    model.compile("sgd", loss=loss, jit_compile=False, run_eagerly=way == "eager fit")
    given = labels.astype(str) if way == "strings" else labels
    data = tf.data.Dataset.from_tensor_slices((embeddings, given)).batch(40)

    def two_batches():
        if way == "call":
            return [loss(labels, embeddings) for _ in range(2)]
        return model.fit(data, epochs=2, verbose=0, shuffle=False)

    with pytest.warns(UserWarning, match=f"RankedListLoss: .*{message}.*several pictures") as caught:
        two_batches()
    assert len(caught) == 1


def test_other_batches_do_not_warn():
    """Nor any that XLA compiles, which can't call Python."""
    labels, embeddings = batch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf.function(RankedListLoss())(tf.constant(labels), embeddings)
        compiled = tf.function(RankedListLoss(), jit_compile=True)
        for odd in ODD_BATCHES.values():
            assert np.isfinite(compiled(tf.constant(odd), embeddings))


def test_wrong_parameters_are_refused_at_once():
    """A mistake is reported where the loss is made, not at the first batch."""
    with pytest.raises(ValueError, match="variant must be one of"):
        RankedListLoss(variant="none")
    with pytest.raises(ValueError, match="block_size must be"):
        RankedListLoss(block_size=-1)
