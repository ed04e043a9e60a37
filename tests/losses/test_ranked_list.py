"""The loss against a NumPy oracle, then each trap of similar libraries."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rll_tf.losses import ranked_list_loss
from tests.losses.oracle import oracle

VARIANTS = ("paper", "release2019", "release2020")
# Computed in float64, returned in float32; gradients in the dtype of the embeddings.
VALUE_TOLERANCE = {"rtol": 1e-5, "atol": 1e-7}
GRADIENT_TOLERANCE = {
    "float16": {"rtol": 1e-3, "atol": 1e-6},
    "float32": {"rtol": 1e-4, "atol": 1e-7},
    "float64": {"rtol": 1e-4, "atol": 1e-9},
}
# Above 128 embeddings distances are float32.
FLOAT32_TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}


def value_and_gradient(labels, embeddings, **parameters):
    """Values [N] and the gradient of their mean [N, D]."""
    embeddings = tf.convert_to_tensor(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        values = ranked_list_loss(labels, embeddings, **parameters)
        loss = tf.reduce_mean(tf.cast(values, tf.float64))
    return values.numpy(), tape.gradient(loss, embeddings).numpy()


def agree(labels, embeddings, values, gradients, **parameters):
    """Compare with the oracle, which sees the embeddings as they are."""
    embeddings = np.asarray(embeddings)
    expected_values, expected_gradients, _ = oracle(labels, embeddings, **parameters)
    np.testing.assert_allclose(values, expected_values, **VALUE_TOLERANCE)
    np.testing.assert_allclose(
        gradients, expected_gradients, **GRADIENT_TOLERANCE[embeddings.dtype.name], verbose=True
    )


def batch(count=40, dimensions=7, classes=6, seed=0, scale=0.4):
    """Labels of unequal classes and embeddings of unequal lengths, about half of all pairs mined."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    embeddings = rng.normal(size=[count, dimensions]) * scale * rng.uniform(0.5, 1.5, [count, 1])
    return labels, (embeddings + rng.normal(size=dimensions)).astype(np.float32)


@st.composite
def batches(draw):
    """N of 1 to 64, D of 1 to 32, unequal classes, duplicates, three dtypes."""
    count, dimensions = draw(st.integers(1, 64)), draw(st.integers(1, 32))
    labels = draw(npst.arrays(np.int64, count, elements=st.integers(0, draw(st.integers(0, 12)))))
    dtype = draw(st.sampled_from(["float16", "float32", "float64"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.01, 0.2, 0.5, 1.0, 3.0]))
    embeddings = rng.normal(size=[count, dimensions]) * scale
    if draw(st.booleans()):
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    if draw(st.booleans()):
        embeddings = np.round(embeddings, 1)
    for _ in range(draw(st.integers(0, 6))):
        embeddings[rng.integers(count)] = embeddings[rng.integers(count)]
    return labels, embeddings.astype(dtype)


@st.composite
def parameters(draw):
    """Each parameter over its range, its ends included."""
    alpha = draw(st.sampled_from([1.2, 1.0, 0.5]) | st.floats(1e-3, 4.0))
    return {
        "alpha": alpha,
        "margin": draw(st.sampled_from([0.4, 0.0, alpha]) | st.floats(0.0, alpha)),
        "temperature": draw(st.sampled_from([10.0, 0.0, 1e4]) | st.floats(0.0, 1e3)),
        "variant": draw(st.sampled_from(VARIANTS)),
        "positive_temperature": draw(st.sampled_from([0.0, 0.0, 3.0])),
        "balance": draw(st.sampled_from([0.5, 0.5, 0.2, 1.0])),
    }


def check_agreement(drawn, chosen, block_size):
    """Value within 1e-5 and gradient within 1e-4 of the oracle, every variant, dense and in blocks."""
    labels, embeddings = drawn
    values, gradients = value_and_gradient(labels, embeddings, **chosen, block_size=block_size)
    agree(labels, embeddings, values, gradients, **chosen)


CASES = (batches(), parameters(), st.sampled_from([None, None, 1, 5, 64]))


@hypothesis.settings(max_examples=120, derandomize=True)
@hypothesis.given(*CASES)
def test_agrees_with_the_oracle(drawn, chosen, block_size):
    """Over 120 batches."""
    check_agreement(drawn, chosen, block_size)


@pytest.mark.slow
@hypothesis.settings(max_examples=600, derandomize=True)
@hypothesis.given(*CASES)
def test_agrees_with_the_oracle_over_many_batches(drawn, chosen, block_size):
    """Over 600 batches."""
    check_agreement(drawn, chosen, block_size)


@hypothesis.settings(max_examples=60, derandomize=True)
@hypothesis.given(
    npst.arrays(
        st.sampled_from([np.float32, np.float64]),
        st.tuples(st.integers(1, 6), st.integers(1, 3)),
        elements=st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-30, 1e-8, 1.0000001, 1e6, -1e30, 0.8, 1.2, 2.0]),
    ),
    st.data(),
    parameters(),
)
def test_agrees_on_hostile_numbers(embeddings, data, chosen):
    """Nearly equal, tiny and huge embeddings, and pairs exactly on a bound, are judged exactly."""
    labels = data.draw(npst.arrays(np.int64, len(embeddings), elements=st.integers(0, 2)))
    hypothesis.assume(chosen["variant"] != "release2019" or np.abs(embeddings).max() < 1e18)
    values, gradients = value_and_gradient(labels, embeddings, **chosen)
    agree(labels, embeddings, values, gradients, **chosen)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("block_size", [None, 100])
def test_agrees_with_the_oracle_in_a_large_batch(variant, block_size):
    """Above 128 embeddings, in compiled float32, values and gradients agree too."""
    labels, embeddings = batch(count=290, classes=40)
    values, gradients = value_and_gradient(
        labels, embeddings, variant=variant, block_size=block_size, alpha=1.3
    )
    expected_values, expected_gradients, _ = oracle(labels, embeddings, variant=variant, alpha=1.3)
    np.testing.assert_allclose(values, expected_values, **FLOAT32_TOLERANCE)
    np.testing.assert_allclose(gradients * 290, expected_gradients * 290, rtol=1e-4, atol=2e-5)


def hostile(kind):
    """160 embeddings [160, 8] of 30 classes that a float32 product alone would misjudge."""
    rng = np.random.default_rng(1)
    labels, embeddings = rng.integers(0, 30, 160), rng.normal(size=[160, 8]) * 0.3
    if kind == "pairs on a bound":
        embeddings = rng.integers(0, 2, [160, 8]) * 0.4
    elif kind == "rounded":
        embeddings = embeddings.round(1)
    elif kind == "copies":
        embeddings = embeddings[rng.integers(0, 80, 160)]
    elif kind == "an outlier":
        embeddings[7] *= 1000
    elif kind == "two sizes":
        embeddings[::2] *= 30
    elif kind == "two tight groups":
        embeddings = embeddings[rng.integers(0, 2, 160)] + rng.normal(size=[160, 8]) * 1e-3
    return labels, embeddings.astype(np.float32)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "kind", ["pairs on a bound", "rounded", "copies", "an outlier", "two sizes", "two tight groups"]
)
def test_agrees_on_hostile_large_batches(kind, variant):
    """Values to 1e-5 and gradients to 1e-4 of the oracle where batches are compiled in float32, too."""
    labels, embeddings = hostile(kind)
    values, gradients = value_and_gradient(labels, embeddings, variant=variant)
    expected_values, expected_gradients, mined = oracle(labels, embeddings, variant=variant)
    assert mined.max() > 0
    np.testing.assert_allclose(values, expected_values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients * 160, expected_gradients * 160, rtol=1e-4, atol=1e-5)


def test_near_duplicates_in_a_large_batch_are_judged_exactly():
    """A negative at a millionth of the usual distance keeps its direction in float32 too."""
    labels, embeddings = batch(count=290, classes=40)
    labels[:2] = 0, 1
    embeddings[1] = embeddings[0]
    embeddings[1, 0] = np.nextafter(embeddings[1, 0], np.float32(9))
    values, gradients = value_and_gradient(labels, embeddings, temperature=50.0)
    expected_values, expected_gradients, _ = oracle(labels, embeddings, temperature=50.0)
    np.testing.assert_allclose(values, expected_values, **FLOAT32_TOLERANCE)
    np.testing.assert_allclose(gradients[:2], expected_gradients[:2], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("block_size", [1, 7, 39, 40, 41])
def test_block_size_changes_nothing(block_size):
    """Any block size gives the dense result beyond rounding."""
    labels, embeddings = batch()
    dense = value_and_gradient(labels, embeddings)
    blocked = value_and_gradient(labels, embeddings, block_size=block_size)
    np.testing.assert_allclose(blocked[0], dense[0], rtol=1e-6)
    np.testing.assert_allclose(blocked[1], dense[1], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("length", [40, None])
@pytest.mark.parametrize("block_size", [None, 16])
def test_graphs_agree_with_eager(compiled, length, block_size):
    """Inside tf.function, with and without XLA, of known and unknown length."""
    labels, embeddings = batch()
    signature = [tf.TensorSpec([length], tf.int64), tf.TensorSpec([length, 7], tf.float32)]

    @tf.function(input_signature=signature, jit_compile=compiled)
    def graph(labels, embeddings):
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            values = ranked_list_loss(labels, embeddings, block_size=block_size)
            loss = tf.reduce_mean(values)
        return values, tape.gradient(loss, embeddings)

    agree(labels, embeddings, *(each.numpy() for each in graph(labels, embeddings)))


def test_gradient_flows_through_the_query_alone():
    """What one query's value gives to the other embeddings is exactly nothing."""
    labels, embeddings = batch()
    embeddings = tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = ranked_list_loss(labels, embeddings)[3]
    gradient = tape.gradient(value, embeddings).numpy()
    assert np.any(gradient[3])
    assert not np.any(np.delete(gradient, 3, axis=0))


@pytest.mark.parametrize("compiled", [False, True])
def test_second_derivatives_are_refused(compiled):
    """Differentiating the gradient raises instead of giving a wrong number."""
    labels, embeddings = batch()

    def twice(embeddings):
        with tf.GradientTape() as outer:
            outer.watch(embeddings)
            with tf.GradientTape() as inner:
                inner.watch(embeddings)
                loss = tf.reduce_mean(ranked_list_loss(labels, embeddings))
            gradient = inner.gradient(loss, embeddings)
        return outer.gradient(gradient, embeddings)

    with pytest.raises(NotImplementedError, match="no second derivative"):
        (tf.function(twice, jit_compile=True) if compiled else twice)(tf.constant(embeddings))


# What users of similar libraries tripped over.


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_without_positives_is_judged_by_its_negatives(variant):
    """Trap 1: no positives at all, and no negatives at all, give finite and right values."""
    _, embeddings = batch()
    for labels in (np.arange(40), np.zeros(40, np.int64)):
        values, gradients = value_and_gradient(labels, embeddings, variant=variant)
        assert values.max() > 0
        agree(labels, embeddings, values, gradients, variant=variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_collapsed_embeddings_have_no_gradient(variant):
    """Trap 2: all embeddings equal: every negative counts with alpha, and nothing pulls or pushes."""
    labels = np.arange(300) % 100
    for count in (30, 300):
        embeddings = np.full([count, 5], 0.3, np.float32)
        values, gradients = value_and_gradient(labels[:count], embeddings, variant=variant)
        expected, _, _ = oracle(labels[:count], embeddings, variant=variant)
        np.testing.assert_allclose(values, expected, rtol=1e-5)
        assert not np.any(gradients)


def test_a_negative_at_distance_zero_counts():
    """Trap 2: it is the hardest negative, not a masked one."""
    values, gradients = value_and_gradient([0, 1], np.zeros([2, 3], np.float32))
    np.testing.assert_allclose(values, [1.2, 1.2], rtol=1e-6)
    assert not np.any(gradients)


def test_another_image_at_distance_zero_is_not_the_query():
    """The query is left out by its index: its duplicate of the same class is mined when m exceeds alpha."""
    values, _ = value_and_gradient([0, 0], np.ones([2, 3], np.float32), alpha=1.0, margin=1.5)
    np.testing.assert_allclose(values, [0.5, 0.5], rtol=1e-6)


def test_the_value_does_not_drift_with_the_batch():
    """Trap 3: no epsilon a pair: the same list repeated far away leaves each value as it was."""
    labels, embeddings = batch(count=20)
    lone, _ = value_and_gradient(labels, embeddings.astype(np.float64))
    many = np.concatenate([embeddings.astype(np.float64) + 1000.0 * k for k in range(20)])
    repeated, _ = value_and_gradient(np.concatenate([labels + 100 * k for k in range(20)]), many)
    np.testing.assert_allclose(repeated, np.tile(lone, 20), rtol=1e-6)


@pytest.mark.parametrize("base", [2**24, 2**53, 2**63 - 2])
def test_labels_that_collide_in_floating_point_stay_different(base):
    """Trap 4: int64 labels that differ only beyond 2^24 or 2^53 are two classes."""
    embeddings = np.array([[0.0, 0.0], [0.1, 0.0]], np.float32)
    values, _ = value_and_gradient(np.array([base, base + 1], np.int64), embeddings)
    np.testing.assert_allclose(values, 1.1, rtol=1e-6)


@pytest.mark.parametrize("kind", ["bool", "int8", "uint8", "int32", "uint64", "str", "bytes", "column"])
def test_labels_of_every_kind_mean_the_same(kind):
    """Integers of any width, booleans, strings, and a column of labels."""
    labels, embeddings = batch(classes=2)
    expected, _ = value_and_gradient(labels, embeddings)
    other = labels[:, None] if kind == "column" else labels.astype(kind)
    values, _ = value_and_gradient(other, embeddings)
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_is_raised_before_distances(dtype):
    """Trap 7: the value is that of the rounded embeddings in float64."""
    labels, embeddings = batch()
    halves = tf.cast(embeddings, dtype)
    values, gradients = value_and_gradient(labels, halves)
    expected, expected_gradients, _ = oracle(labels, tf.cast(halves, tf.float64).numpy())
    np.testing.assert_allclose(values, expected, **VALUE_TOLERANCE)
    np.testing.assert_allclose(gradients.astype(np.float64), expected_gradients, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e-30, 1e-12, 1e12, 1e30, 3e38])
@pytest.mark.parametrize("count", [24, 280])
def test_every_scale_is_finite(variant, scale, count):
    """Zero, denormal, tiny and huge embeddings give finite values and gradients, small batch or large."""
    labels, embeddings = batch(count=count, classes=9)
    embeddings = (embeddings / np.abs(embeddings).max() * scale).astype(np.float32)
    values, gradients = value_and_gradient(labels, embeddings, variant=variant)
    assert np.all(np.isfinite(values))
    assert np.isfinite(np.sum(values))
    assert np.all(np.isfinite(gradients))


@pytest.mark.parametrize("count", [24, 280])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_every_scale_is_right(count, scale):
    """Tiny and huge embeddings keep the oracle's values and directions, small batch or large."""
    labels, embeddings = batch(count=count, classes=9)
    embeddings = (embeddings * scale).astype(np.float32)
    values, gradients = value_and_gradient(labels, embeddings, alpha=1.2 * scale, margin=0.4 * scale)
    expected, expected_gradients, _ = oracle(labels, embeddings, alpha=1.2 * scale, margin=0.4 * scale)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=2e-6 * scale)
    np.testing.assert_allclose(gradients * count, expected_gradients * count, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "extreme",
    [
        {"temperature": 0.0},
        {"temperature": 1e4},
        {"margin": 0.0},
        {"margin": 1.2},
        {"alpha": 1e-6, "margin": 0.0},
        {"alpha": 1e-6, "margin": 1e-6},
        {"alpha": 1e6, "margin": 0.4},
        {"alpha": 1e6, "margin": 1e6},
        {"alpha": 0.3, "margin": 0.9},
        {"temperature": 1e4, "alpha": 1e6, "margin": 1e6, "positive_temperature": 1e4},
    ],
    ids=str,
)
def test_extreme_parameters(variant, extreme):
    """Everything mined, nothing mined, equal weights and the hardest alone: the oracle's values."""
    labels, embeddings = batch()
    embeddings[5] = embeddings[6]
    values, gradients = value_and_gradient(labels, embeddings, variant=variant, **extreme)
    agree(labels, embeddings, values, gradients, variant=variant, **extreme)


def test_a_high_temperature_in_a_large_batch():
    """T = 10^4 picks the hardest negative among 290 as the oracle does."""
    labels, embeddings = batch(count=290, classes=40)
    values, gradients = value_and_gradient(labels, embeddings, temperature=1e4)
    agree(labels, embeddings, values, gradients, temperature=1e4)


def test_the_journal_extras_are_neutral_by_default():
    """Equal weights for positives and a balance of 1/2 are the paper's loss to the last bit."""
    labels, embeddings = batch()
    plain, _ = value_and_gradient(labels, embeddings)
    explicit, _ = value_and_gradient(labels, embeddings, positive_temperature=0.0, balance=0.5)
    np.testing.assert_array_equal(plain, explicit)


def test_the_variants_differ():
    """Each variant is a loss of its own."""
    labels, embeddings = batch()
    values = [value_and_gradient(labels, embeddings, variant=each, alpha=1.4)[0] for each in VARIANTS]
    assert not np.allclose(values[0], values[1])
    assert not np.allclose(values[1], values[2])


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("dimensions", [3, 11])
def test_sizes_of_nothing(count, dimensions):
    """One embedding has no loss, none has none either, eagerly and in graphs of that very size."""
    labels, embeddings = np.zeros(count, np.int64), np.zeros([count, dimensions], np.float32)
    values, gradients = value_and_gradient(labels, embeddings)
    np.testing.assert_array_equal(values, np.zeros(count))
    np.testing.assert_array_equal(gradients, np.zeros([count, dimensions]))
    for compiled in (False, True):
        graph = tf.function(lambda: ranked_list_loss(labels, embeddings), jit_compile=compiled)
        np.testing.assert_array_equal(graph(), np.zeros(count))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [24, 280])
def test_an_embedding_that_is_not_finite(bad, count):
    """Eagerly a clear error; in a graph NaN for every query, never a finite loss."""
    labels, embeddings = batch(count=count)
    embeddings[3, 2] = bad
    with pytest.raises(ValueError, match="embeddings must be finite"):
        ranked_list_loss(labels, embeddings)
    for compiled in (False, True):
        assert np.all(np.isnan(tf.function(ranked_list_loss, jit_compile=compiled)(labels, embeddings)))


@pytest.mark.parametrize(
    ("labels", "embeddings", "message"),
    [
        ([0, 1, 2], np.zeros([2, 4], np.float32), "same length: got 3 labels, 2 embeddings"),
        ([0, 1], np.zeros([2], np.float32), r"embeddings must be \[N, D\]: got shape \(2,\)"),
        ([0, 1], np.zeros([2, 3, 4], np.float32), r"embeddings must be \[N, D\]"),
        ([0, 1], np.zeros([2, 4], np.int32), "embeddings must be floating point: got int32"),
        ([0, 1], np.array([["a"], ["b"]]), "embeddings must be floating point: got string"),
        ([0.0, 1.0], np.zeros([2, 4], np.float32), "labels must be integers or strings: got float32"),
        (np.eye(2, dtype=int), np.zeros([2, 4], np.float32), r"labels must be \[N\] or \[N, 1\]"),
    ],
)
def test_a_batch_of_another_form_is_refused(labels, embeddings, message):
    """Each mistake in a batch gets one clear error."""
    with pytest.raises(ValueError, match=message):
        ranked_list_loss(labels, embeddings)


def test_lengths_that_differ_when_the_graph_runs_are_refused():
    """Lengths unknown to the graph are compared when it runs."""
    signature = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 4], tf.float32)]
    graph = tf.function(ranked_list_loss, input_signature=signature)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have the same length"):
        graph(np.arange(3), np.zeros([2, 4], np.float32))


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("alpha", -1.0, "alpha must not be negative: got -1.0"),
        ("alpha", "1.2", "alpha must be a finite number: got '1.2'"),
        ("margin", -0.1, "margin must not be negative"),
        ("margin", float("nan"), "margin must be a finite number: got nan"),
        ("temperature", -1, "temperature must not be negative"),
        ("temperature", float("inf"), "temperature must be a finite number: got inf"),
        ("temperature", True, "temperature must be a finite number: got True"),
        ("positive_temperature", -1, "positive_temperature must not be negative"),
        ("balance", 1.1, "balance must be between 0 and 1: got 1.1"),
        (
            "variant",
            "release2018",
            "variant must be one of paper, release2019, release2020: got 'release2018'",
        ),
        ("block_size", 0, "block_size must be a positive integer or None: got 0"),
        ("block_size", 2.0, "block_size must be a positive integer or None: got 2.0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(parameter, value, message):
    """Each mistake in a parameter gets one clear error."""
    with pytest.raises(ValueError, match=message):
        ranked_list_loss([0, 1], np.zeros([2, 4], np.float32), **{parameter: value})
