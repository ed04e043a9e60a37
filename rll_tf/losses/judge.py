"""How each query of a batch is judged: its loss, and the gradient of its loss.

The gallery is constant while i is the query, so dL_i/df_i depends on row i of the distance matrix
alone. A block of rows is therefore judged from start to end at once: one matrix product for its
distances, element-wise work, one matrix product for its gradient. Nothing N x N is kept.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from rll_tf.losses.blocks import in_blocks, pair_masks, rows_at_a_time
from rll_tf.losses.pairwise import (
    ERROR,
    RESOLUTION,
    Centred,
    centred,
    differences,
    product,
    row_sums,
    squared_distances,
)
from rll_tf.losses.variants import Parameters

# exp(-T d) with d below the bound needs no larger reference while T times the bound is below this:
# exp(-60), and the sum of 2^32 ones, are far inside float32.
_SAFE_EXPONENT = 60.0
# Bounds and slopes in units stay this factor below the largest number, so that their sums and their
# products with distances, a few units long, are finite.
_HEADROOM = 2.0**-24
# Twice what a weight exp(-T d), hence a gradient, may be off by: the error of d is that of d² over 2 d.
_WEIGHT_TOLERANCE = 2e-4
# Values, to be ten times as exact, count as weights of this temperature.
_VALUE_STEEPNESS = 10.0
# How many rows in doubt are judged in float64 at a time.
_ROWS_AGAIN = 16


class Judgement(NamedTuple):
    """One entry a query."""

    values: tf.Tensor  # [Q] float64: L_i
    directions: tf.Tensor  # [Q, D] in the dtype of the embeddings: dL_i/df_i
    log_weights: tf.Tensor  # [Q] float64: log of the sum of the weights of all that i mines


class Gallery(NamedTuple):
    """All embeddings of a batch, and where the queries among them begin."""

    labels: tf.Tensor  # [N] numbers
    embeddings: tf.Tensor  # [N, D] float32 or float64
    first: tf.Tensor  # int32 scalar


class Terms(NamedTuple):
    """The parameters of the loss as scalars of one dtype, lengths in units of the batch."""

    positive_bound: tf.Tensor
    negative_bound: tf.Tensor
    positive_slope: tf.Tensor
    negative_slope: tf.Tensor
    balance: tf.Tensor
    steepness: tf.Tensor  # how much an error of a distance weighs, in 1/units


class Rows(NamedTuple):
    """Some queries against the whole gallery, each array [Q, N]."""

    distances: tf.Tensor  # in units
    positive: tf.Tensor  # bool: another embedding of the query's class
    negative: tf.Tensor  # bool: an embedding of another class
    uncertain: tf.Tensor  # bool: the result may depend on the rounding of this distance


# What judges some rows by themselves once it is prepared, and how many at a time.
Way = tuple[Callable[[], Callable[[tf.Tensor], Judgement]], int]


@dataclasses.dataclass(frozen=True)
class Form:
    """What decides which operations are needed; one graph is traced for each.

    Args:
        squared: pairs are judged by half their squared distance.
        flat_positives: all mined positives weigh alike.
        gentle: exp(-T d) stays in range for every mined negative.
        reweighted: queries are weighted by how much they mine.
        block_size: how many queries are judged at a time; None chooses, `ALL` does not divide.
        dtype: float32 or float64, what distances are computed in.
    """

    squared: bool
    flat_positives: bool
    gentle: bool
    reweighted: bool
    block_size: int | None
    dtype: tf.DType

    @staticmethod
    def of(parameters: Parameters, block_size: int | None, dtype: tf.DType) -> Form:
        """The form that `parameters` need."""
        return Form(
            squared=parameters.squared,
            flat_positives=parameters.positive_temperature == 0,
            gentle=parameters.temperature * parameters.negative_bound < _SAFE_EXPONENT,
            reweighted=parameters.reweighted,
            block_size=block_size,
            dtype=dtype,
        )


def judge(gallery: Gallery, count: int | tf.Tensor, numbers: tf.Tensor, form: Form) -> Judgement:
    """Judge rows `first` to `first + count` of the gallery, each against all its other rows.

    Rows whose result may depend on the rounding of a float32 product are judged again in float64, and
    those that float64 leaves in doubt from differences.

    Args:
        gallery: N embeddings.
        count: how many queries.
        numbers: [5] float64, `Parameters.numbers`.
        form: which operations, and in what dtype and blocks.
    """
    centre = centred(gallery.embeddings, form.dtype)

    def judge_block(start: tf.Tensor, rows: int | tf.Tensor) -> Judgement:
        labels = tf.slice(gallery.labels, [start], [rows])
        masks = pair_masks(gallery.labels, labels, start + tf.range(rows))
        return _judge_by_products(centre, centre.slice(start, rows), masks, numbers, form)

    def judge_in_float64() -> Callable[[tf.Tensor], Judgement]:
        wide, wide_form = centred(gallery.embeddings, tf.float64), dataclasses.replace(form, dtype=tf.float64)

        def judge_rows(rows: tf.Tensor) -> Judgement:
            masks = pair_masks(gallery.labels, tf.gather(gallery.labels, rows), rows)
            return _judge_by_products(wide, wide.gather(rows), masks, numbers, wide_form)

        return judge_rows

    def judge_by_differences() -> Callable[[tf.Tensor], Judgement]:
        return lambda rows: _judge_row_by_differences(gallery, rows, centre.unit, numbers, form)

    types = Judgement(tf.float64, form.dtype, tf.float64)
    rows = rows_at_a_time(gallery.embeddings, form.block_size)
    judged = Judgement(*in_blocks(judge_block, types, gallery.first, count, rows))
    # 0 times the sum is NaN if an embedding is not finite; such a batch must not look like a loss. The
    # directions hold NaN then by themselves, through the mean.
    poison = 0.0 * tf.cast(tf.reduce_sum(centre.norms), tf.float64)
    ways: list[Way] = [(judge_in_float64, _ROWS_AGAIN)] if form.dtype == tf.float32 else []
    judged = _judge_again(judged, poison, gallery.first, [*ways, (judge_by_differences, 1)])
    directions = tf.cast(judged.directions, gallery.embeddings.dtype)
    return Judgement(judged.values + poison, directions, judged.log_weights)


def judge_and_weigh(
    gallery: Gallery, count: int | tf.Tensor, numbers: tf.Tensor, form: Form
) -> tuple[tf.Tensor, tf.Tensor]:
    """`weigh` of `judge` where all queries are here."""
    judged = judge(gallery, count, numbers, form)
    return weigh(judged, judged.log_weights, gallery, form)


def weigh(
    judged: Judgement, log_weights: tf.Tensor, gallery: Gallery, form: Form
) -> tuple[tf.Tensor, tf.Tensor]:
    """The values [Q] of queries in float32 and their directions [Q, D], by N omega_i / 2 if `form` says so.

    Args:
        judged: Q queries.
        log_weights: [N] float64, of all queries of the batch.
        gallery: N embeddings.
        form: whether queries are weighted.
    """
    values, directions = judged.values, judged.directions
    if form.reweighted:
        largest = tf.reduce_max(log_weights)
        largest = tf.where(tf.math.is_finite(largest), largest, 0.0)  # nothing at all is mined
        total = tf.reduce_sum(tf.exp(log_weights - largest))
        share = tf.math.divide_no_nan(tf.exp(judged.log_weights - largest), total)
        weights = 0.5 * tf.cast(tf.size(log_weights), tf.float64) * share
        values = weights * values
        directions *= tf.cast(weights, directions.dtype)[:, None]
    largest_value = tf.float32.max / tf.cast(tf.maximum(tf.size(gallery.labels), 1), tf.float64)
    return tf.cast(tf.clip_by_value(values, -largest_value, largest_value), tf.float32), directions


@functools.lru_cache(maxsize=64)
def compiled(function: Callable, form: Form) -> Callable:
    """`judge` or `judge_and_weigh`, compiled by XLA, which reads each distance a few times, not 20."""
    return tf.function(functools.partial(function, form=form), reduce_retracing=True, jit_compile=True)


def _terms(numbers: tf.Tensor, unit: tf.Tensor, dtype: tf.DType) -> Terms:
    """The five numbers of `Parameters.numbers` in units and in `dtype`."""
    largest = dtype.max * _HEADROOM
    positive_bound, negative_bound, positive_temperature, temperature, balance = tf.unstack(numbers, 5)
    steepness = tf.maximum(positive_temperature, temperature) + _VALUE_STEEPNESS
    bounds = (tf.minimum(each / unit, largest) for each in (positive_bound, negative_bound))
    slopes = (tf.minimum(each * unit, largest) for each in (positive_temperature, temperature))
    each = (*bounds, *slopes, balance, tf.minimum(steepness * unit, largest))
    return Terms(*(tf.cast(number, dtype) for number in each))


def _judge_by_products(
    gallery: Centred, queries: Centred, masks: tuple[tf.Tensor, tf.Tensor], numbers: tf.Tensor, form: Form
) -> Judgement:
    """The judgement of queries by two matrix products; NaN where a distance is in doubt."""
    terms = _terms(numbers, gallery.unit, form.dtype)
    rows = _rows(*squared_distances(gallery, queries), masks, terms)
    values, coefficients, log_weights = _judge_rows(rows, terms, form)
    directions = row_sums(coefficients)[:, None] * queries.vectors - product(coefficients, gallery.vectors)
    return _in_lengths(values, directions, log_weights, gallery.unit, form)


def _in_lengths(
    values: tf.Tensor, directions: tf.Tensor, log_weights: tf.Tensor, unit: tf.Tensor, form: Form
) -> Judgement:
    """A judgement in units as one in the lengths of the embeddings."""
    values *= unit
    if form.squared:
        values, directions = values * unit, directions * tf.cast(unit, directions.dtype)
    return Judgement(values, directions, log_weights)


def _rows(squares: tf.Tensor, norms: tf.Tensor, masks: tuple[tf.Tensor, tf.Tensor], terms: Terms) -> Rows:
    """Distances from their squares [Q, N], and which of them are uncertain.

    Those are pairs within the product's error of a bound, and pairs so near that it shows in the distance,
    or in weights that are steep. A positive that is near, but within its bound in any case, is harmless.
    """
    positive, negative = masks
    error = ERROR[squares.dtype] * norms
    doubt = RESOLUTION[squares.dtype] * norms
    if squares.dtype == tf.float32:
        doubt = tf.maximum(doubt, tf.square(terms.steepness * error / _WEIGHT_TOLERANCE))
    beyond = tf.square(tf.maximum(terms.positive_bound, 0.0))
    within = tf.square(terms.negative_bound)
    uncertain = positive & (tf.abs(squares - beyond) < error) | negative & (tf.abs(squares - within) < error)
    harmless = positive & (2.0 * doubt < beyond)
    uncertain |= (squares < doubt) & (positive | negative) & ~harmless
    return Rows(tf.sqrt(squares), positive, negative, uncertain)


def _judge_rows(rows: Rows, terms: Terms, form: Form) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """L_i [Q] float64, the coefficients c_ij [Q, N] of dL_i/df_i = sum_j c_ij (f_i - f_j), log weights [Q].

    The positive and the negative part are one formula. With e_ij = d_ij - b for a positive and b - d_ij
    for a negative (b its bound), mined pairs are those with e_ij > 0, their shares s_ij are the softmax
    of T e_ij over them, and the part is sum_j s_ij e_ij. An uncertain pair makes L_i NaN, which spares a
    pass over all pairs that looks for one.
    """
    distances = rows.distances
    outside, inside = distances - terms.positive_bound, terms.negative_bound - distances
    pull, log_pull = _shares(
        rows.positive & (outside > 0.0), outside, terms.positive_slope, form.flat_positives
    )
    # No e_ij of a negative exceeds its bound, which is reference enough while T times it is small.
    reference = terms.negative_bound if form.gentle else None
    push, log_push = _shares(
        rows.negative & (inside > 0.0), inside, terms.negative_slope, reference=reference
    )
    # Twice the convex combination, so that the neutral 1/2 is exactly the plain sum.
    pull, push = 2.0 * (1.0 - terms.balance) * pull, 2.0 * terms.balance * push
    scale = tf.ones_like(terms.negative_bound)
    if form.squared:  # (d² - b²) / 2 = (d - b) (d + b) / 2, divided by a bound that may be huge in units
        scale = tf.maximum(terms.negative_bound, scale)
        outside *= (0.5 / scale) * (distances + terms.positive_bound)
        inside *= (0.5 / scale) * (distances + terms.negative_bound)
    nan = tf.constant(np.nan, distances.dtype)
    values = row_sums(tf.where(rows.uncertain, nan, pull * outside + push * inside))
    values = tf.cast(values, tf.float64) * tf.cast(scale, tf.float64)
    coefficients = pull - push
    if not form.squared:  # u_ij = (f_i - f_j) / d_ij, 0 where d_ij = 0
        coefficients = tf.where(distances > 0.0, coefficients / distances, 0.0)
    return values, coefficients, _log_of_sum(tf.cast(log_pull, tf.float64), tf.cast(log_push, tf.float64))


def _shares(
    mined: tf.Tensor,
    excess: tf.Tensor,
    slope: tf.Tensor,
    flat: bool = False,
    reference: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Softmax of T e over each row's mined pairs [Q, N], 0 where there is none; log sum exp(T e) [Q]."""
    if flat:
        weights, shift = tf.cast(mined, excess.dtype), tf.zeros([], excess.dtype)
    else:
        if reference is None:
            reference = tf.reduce_max(tf.where(mined, excess, 0.0), axis=1, keepdims=True)
        weights = tf.where(mined, tf.exp(slope * (excess - reference)), 0.0)
        shift = tf.reshape(slope * reference, [-1])
    total = row_sums(weights)
    scale = tf.math.divide_no_nan(tf.ones_like(total), total)
    return weights * scale[:, None], shift + tf.math.log(total)


def _judge_again(judged: Judgement, poison: tf.Tensor, first: tf.Tensor, ways: list[Way]) -> Judgement:
    """Replace the results that are NaN, unless `poison` is, by the first way that leaves no doubt.

    Args:
        judged: the rows of the gallery from `first` on.
        poison: NaN if an embedding is not finite, which no way helps.
        first: int32 scalar.
        ways: each a function that prepares one from rows of the gallery, [B] int32, to their judgement, and
            B. If fewer rows are left, rows in no doubt fill up.
    """
    (prepare, at_a_time), *others = ways
    unsure = tf.math.is_nan(judged.values) & ~tf.math.is_nan(poison)
    count = tf.size(unsure)
    block = tf.minimum(at_a_time, count)

    def loop() -> Judgement:
        again = prepare()
        order = tf.argsort(tf.cast(unsure, tf.int32), direction="DESCENDING", stable=True)
        total = tf.reduce_sum(tf.cast(unsure, tf.int32))

        def replace(done: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
            rows = tf.slice(order, [tf.minimum(done, count - block)], [block])
            new = again(first + rows)
            updated = (
                tf.tensor_scatter_nd_update(old, rows[:, None], tf.cast(each, old.dtype))
                for old, each in zip(state, new, strict=True)
            )
            return done + block, *updated

        mended = Judgement(*tf.while_loop(lambda done, *_: done < total, replace, [0, *judged])[1:])
        return _judge_again(mended, poison, first, others) if others else mended

    # Without the condition XLA would prepare every batch for the loop, which hardly any needs.
    return tf.cond(tf.reduce_any(unsure), loop, lambda: judged)


def _judge_row_by_differences(
    gallery: Gallery, row: tf.Tensor, unit: tf.Tensor, numbers: tf.Tensor, form: Form
) -> Judgement:
    """The judgement of one query, `row` [1], from differences in float64."""
    query = tf.gather(gallery.embeddings, row)
    apart = differences(query, gallery.embeddings, unit)
    distances = tf.sqrt(row_sums(tf.square(apart)))[None, :]
    masks = pair_masks(gallery.labels, tf.gather(gallery.labels, row), row)
    rows = Rows(distances, *masks, tf.zeros_like(distances, tf.bool))
    values, coefficients, log_weights = _judge_rows(rows, _terms(numbers, unit, tf.float64), form)
    return _in_lengths(values, tf.matmul(coefficients, apart), log_weights, unit, form)


def _log_of_sum(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """The log of exp a + exp b, -infinity where both are."""
    largest = tf.maximum(a, b)
    largest = tf.where(tf.math.is_finite(largest), largest, tf.zeros_like(largest))
    return largest + tf.math.log(tf.exp(a - largest) + tf.exp(b - largest))
