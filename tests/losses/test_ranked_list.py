"""The loss against a NumPy oracle, then each trap of similar libraries."""

import contextlib

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rll_tf.losses import ranked_list_loss
from tests.losses.helpers import uncompiled
from tests.losses.oracle import length, oracle

VARIANTS = ("paper", "release2019", "release2020")


def value_and_gradient(labels, embeddings, *, compiled=False, **parameters):
    """Values [N] and the gradient of their mean [N, D]."""
    embeddings = tf.convert_to_tensor(embeddings)
    with contextlib.nullcontext() if compiled else uncompiled(), tf.GradientTape() as tape:
        tape.watch(embeddings)
        values = ranked_list_loss(labels, embeddings, **parameters)
        loss = tf.reduce_mean(tf.cast(values, tf.float64))
    return values.numpy(), tape.gradient(loss, embeddings).numpy()


def agree(labels, embeddings, values, gradients, *, temperature=10.0, gallery=None, **parameters):
    """Compare with the oracle to the rounding that the docstring states, relative to the largest number.

    A squared distance has eps times the squared norms as its error, and weights exp(T d) are T times as
    sensitive.
    """
    embeddings = np.asarray(embeddings)
    everything = embeddings if gallery is None else np.concatenate([embeddings, gallery[1]])
    dtype = np.float64 if embeddings.dtype == np.float64 else np.float32
    tolerance = 8 * np.finfo(dtype).eps * conditioning(everything) * (1 + temperature)
    expected_values, expected, _ = oracle(
        labels, embeddings, temperature=temperature, gallery=gallery, **parameters
    )
    scale = np.max(np.abs(expected_values), initial=0.0)
    np.testing.assert_allclose(values, expected_values, rtol=tolerance, atol=tolerance * scale)
    if embeddings.dtype == np.float16:
        tolerance += 1e-3  # the gradients are rounded to it
    scale = np.max(np.abs(expected), initial=0.0)
    np.testing.assert_allclose(gradients, expected, rtol=tolerance, atol=tolerance * scale + 1e-30)


def conditioning(embeddings):
    """The largest of (|f_i|² + |f_j|²) / d_ij² about the mean, copies left out; at least 1."""
    f = np.asarray(embeddings, np.float64)
    f = f - f.mean(axis=0)
    squares = np.sum((f[:, None] - f[None]) ** 2, axis=-1)
    norms = np.sum(f**2, axis=1)
    return np.max((norms[:, None] + norms[None])[squares > 0] / squares[squares > 0], initial=1.0)


def batch(count=40, dimensions=7, classes=6, seed=0, scale=0.4):
    """Labels of unequal classes and embeddings of unequal lengths, about half of all pairs mined."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    embeddings = rng.normal(size=[count, dimensions]) * scale * rng.uniform(0.5, 1.5, [count, 1])
    return labels, (embeddings + rng.normal(size=dimensions)).astype(np.float32)


@st.composite
def batches(draw):
    """N of 1 to 48, D of 2 to 32, unequal classes, copies, grids, three dtypes, sometimes a gallery."""
    count, dimensions = draw(st.integers(1, 48)), draw(st.integers(2, 32))
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
    embeddings = embeddings.astype(dtype)
    further = draw(st.sampled_from([0, 0, count // 3]))
    gallery = (labels[count - further :], embeddings[count - further :]) if further else None
    return labels[: count - further], embeddings[: count - further], gallery


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


def off_the_bounds(embeddings, chosen):
    """The parameters, alpha and margin moved until no pair is within rounding of a bound."""
    f = np.asarray(embeddings, np.float64)
    apart = np.array([length(a - b) for i, a in enumerate(f) for b in f[:i]])
    while True:
        alpha, margin = chosen["alpha"], chosen["margin"]
        release = chosen["variant"] == "release2020"
        bounds = (1 - margin / 2, 1 + margin / 2) if release else (alpha - margin, alpha)
        if all(
            np.all(np.abs(apart - bound) > 1e-5 * (1 + np.abs(f).max())) or bound == 0 for bound in bounds
        ):
            return chosen
        chosen = {**chosen, "alpha": alpha + 1.7e-4, "margin": margin + 1.1e-4}


def check_agreement(drawn, chosen, block_size, compiled=False):
    """Values and gradients are the oracle's, in blocks or not, with a gallery or not."""
    labels, embeddings, gallery = drawn
    everything = embeddings if gallery is None else np.concatenate([embeddings, gallery[1]])
    hypothesis.assume(conditioning(everything) < 1e4)  # beyond, float32 resolves little
    chosen = off_the_bounds(everything, chosen)
    values, gradients = value_and_gradient(
        labels, embeddings, gallery=gallery, block_size=block_size, compiled=compiled, **chosen
    )
    agree(labels, embeddings, values, gradients, gallery=gallery, **chosen)


CASES = (batches(), parameters(), st.sampled_from([None, None, 1, 5, 64]))


@hypothesis.settings(max_examples=60, derandomize=True)
@hypothesis.given(*CASES)
def test_agrees_with_the_oracle(drawn, chosen, block_size):
    """Over 60 batches."""
    check_agreement(drawn, chosen, block_size)


@pytest.mark.slow
@hypothesis.settings(max_examples=600)
@hypothesis.given(*CASES)
def test_agrees_with_the_oracle_over_many_batches(drawn, chosen, block_size):
    """Over 600 batches, others every time."""
    check_agreement(drawn, chosen, block_size)


@pytest.mark.slow
@hypothesis.settings(max_examples=100, derandomize=True)
@hypothesis.given(*CASES)
def test_agrees_with_the_oracle_when_compiled(drawn, chosen, block_size):
    """Over 100 batches, compiled by XLA."""
    check_agreement(drawn, chosen, block_size, compiled=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("variant", VARIANTS)
def test_pairs_exactly_on_a_bound_are_not_mined(variant, dtype):
    """On a grid of numbers of few digits the inequalities are strict, as in Eq. 8."""
    rng = np.random.default_rng(1)
    labels, embeddings = rng.integers(0, 30, 160), (rng.integers(0, 3, [160, 4]) * 0.5).astype(dtype)
    values, gradients = value_and_gradient(labels, embeddings, alpha=1.0, margin=0.5, variant=variant)
    agree(labels, embeddings, values, gradients, alpha=1.0, margin=0.5, variant=variant)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["unit norm", "copies", "two tight groups", "a large offset"])
def test_agrees_with_the_oracle_in_a_large_batch(kind, dtype):
    """140 embeddings, in one block and in three."""
    labels, embeddings = batch(count=140, classes=20)
    rng = np.random.default_rng(1)
    if kind == "unit norm":
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    elif kind == "copies":
        embeddings = embeddings[rng.integers(0, 40, 140)]
    elif kind == "two tight groups":
        embeddings = embeddings[rng.integers(0, 2, 140)] + rng.normal(size=[140, 7]) * 0.05
    else:
        embeddings += 10 * rng.normal(size=7)
    embeddings = embeddings.astype(dtype)
    for block_size in (None, 50):
        values, gradients = value_and_gradient(labels, embeddings, block_size=block_size, compiled=True)
        agree(labels, embeddings, values, gradients)


def test_what_float32_cannot_resolve_counts_as_coincident():
    """As the docstring says: a negative nearer than 8 eps of the squared norms is at distance 0."""
    labels, embeddings = batch()
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels, embeddings = np.arange(41), np.concatenate([embeddings, embeddings[:1]])
    embeddings[40, 0] += 1e-5
    values, gradients = value_and_gradient(labels, embeddings, temperature=1e4)
    assert values[0] == values[40] == np.float32(1.2)
    assert not np.any(gradients[[0, 40]])
    values, gradients = value_and_gradient(labels, embeddings.astype(np.float64), temperature=1e4)
    agree(labels, embeddings.astype(np.float64), values, gradients, temperature=1e4)
    assert values[0] < 1.2
    assert np.any(gradients[0])


@pytest.mark.parametrize("kind", [str, np.int32])
def test_a_gallery_is_compared_with_as_the_batch_is(kind):
    """Part of a batch as the gallery of the rest: the same values, of labels of any kind."""
    labels, embeddings = batch()
    whole = ranked_list_loss(labels.astype(kind), embeddings)[:25]
    gallery = labels[25:].astype(kind), embeddings[25:]
    parts = ranked_list_loss(labels[:25].astype(kind), embeddings[:25], gallery=gallery)
    np.testing.assert_allclose(parts, whole, rtol=1e-6)


def test_no_gradient_reaches_the_gallery():
    """It is constant, also where it is part of what is differentiated."""
    labels, embeddings = batch()
    embeddings, gallery = tf.constant(embeddings[:25]), tf.constant(embeddings[25:])
    with tf.GradientTape() as tape:
        tape.watch([embeddings, gallery])
        loss = tf.reduce_mean(ranked_list_loss(labels[:25], embeddings, gallery=(labels[25:], gallery)))
    gradient, nothing = tape.gradient(loss, [embeddings, gallery])
    assert np.any(gradient)
    assert nothing is None


@pytest.mark.parametrize("block_size", [1, 7, 39, 40, 41])
def test_block_size_changes_nothing(block_size):
    """Any block size gives the dense result beyond rounding."""
    labels, embeddings = batch()
    dense = value_and_gradient(labels, embeddings)
    blocked = value_and_gradient(labels, embeddings, block_size=block_size)
    np.testing.assert_allclose(blocked[0], dense[0], rtol=1e-6)
    np.testing.assert_allclose(blocked[1], dense[1], rtol=0, atol=2e-6 * np.abs(dense[1]).max())


# Any two of the three together; the slow tests take all three.
GRAPHS = [
    (compiled, length, block) for compiled in (False, True) for length in (40, None) for block in (None, 16)
]
PAIRS = {(False, 40, None), (True, None, None), (True, 40, 16), (False, None, 16)}


@pytest.mark.parametrize(
    ("compiled", "length", "block_size"),
    [pytest.param(*each, marks=() if each in PAIRS else pytest.mark.slow) for each in GRAPHS],
)
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
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients.astype(np.float64), expected_gradients, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e-15, 1e15])
def test_every_scale_is_finite(variant, scale):
    """Zero, denormal, tiny and huge embeddings give finite values and gradients."""
    labels, embeddings = batch(count=24, classes=9)
    embeddings = (embeddings / np.abs(embeddings).max() * scale).astype(np.float32)
    values, gradients = value_and_gradient(labels, embeddings, variant=variant)
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(gradients))


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_every_scale_is_right(scale):
    """Tiny and huge embeddings keep the oracle's values and directions."""
    labels, embeddings = batch(count=24, classes=9)
    embeddings = (embeddings * scale).astype(np.float32)
    chosen = {"alpha": 1.2 * scale, "margin": 0.4 * scale, "temperature": 10 / scale}
    values, gradients = value_and_gradient(labels, embeddings, **chosen)
    expected, expected_gradients, _ = oracle(labels, embeddings, **chosen)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=2e-6 * scale)
    np.testing.assert_allclose(gradients, expected_gradients, rtol=1e-4, atol=1e-6)


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
        {"alpha": 100.0, "margin": 100.0},
        {"alpha": 0.3, "margin": 0.9},
    ],
    ids=str,
)
def test_extreme_parameters(variant, extreme):
    """Everything mined, nothing mined, equal weights and the hardest alone: the oracle's values."""
    labels, embeddings = batch()
    embeddings[5] = embeddings[6]
    values, gradients = value_and_gradient(labels, embeddings, variant=variant, **extreme)
    agree(labels, embeddings, values, gradients, variant=variant, **extreme)


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


def test_an_embedding_that_is_not_finite():
    """Eagerly a clear error; in a graph NaN for every query, never a finite loss."""
    labels, embeddings = batch(count=24)
    graphs = [tf.function(ranked_list_loss, jit_compile=compiled) for compiled in (False, True)]
    for bad in (np.nan, np.inf, -np.inf):
        embeddings[3, 2] = bad
        with pytest.raises(ValueError, match="embeddings must be finite"):
            ranked_list_loss(labels, embeddings)
        for graph in graphs:
            assert np.all(np.isnan(graph(tf.constant(labels), tf.constant(embeddings))))


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
