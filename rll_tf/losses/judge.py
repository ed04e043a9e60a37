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
    RESOLUTION,
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


class Rows(NamedTuple):
    """Some queries against the whole gallery, each array [Q, N]."""

    distances: tf.Tensor  # in units
    positive: tf.Tensor  # bool: another embedding of the query's class
    negative: tf.Tensor  # bool: an embedding of another class
    uncertain: tf.Tensor  # bool: the result may depend on the rounding of this distance


@dataclasses.dataclass(frozen=True)
class Form:
    """What decides which operations are needed; one graph is traced for each.

    Args:
        squared: pairs are judged by half their squared distance.
        flat_positives: all mined positives weigh alike.
        gentle: exp(-T d) stays in range for every mined negative.
        block_size: how many queries are judged at a time; None chooses, `ALL` does not divide.
        dtype: float32 or float64, what distances are computed in.
    """

    squared: bool
    flat_positives: bool
    gentle: bool
    block_size: int | None
    dtype: tf.DType

    @staticmethod
    def of(parameters: Parameters, block_size: int | None, dtype: tf.DType) -> Form:
        """The form that `parameters` need."""
        return Form(
            squared=parameters.squared,
            flat_positives=parameters.positive_temperature == 0,
            gentle=parameters.temperature * parameters.negative_bound < _SAFE_EXPONENT,
            block_size=block_size,
            dtype=dtype,
        )


def judge(gallery: Gallery, count: int | tf.Tensor, numbers: tf.Tensor, form: Form) -> Judgement:
    """Judge rows `first` to `first + count` of the gallery, each against all its other rows.

    Args:
        gallery: N embeddings.
        count: how many queries.
        numbers: [5] float64, `Parameters.numbers`.
        form: which operations, and in what dtype and blocks.
    """
    centre = centred(gallery.embeddings, form.dtype)
    unit = centre.unit
    terms = _terms(numbers, unit, form.dtype)

    def judge_block(start: tf.Tensor, rows: int | tf.Tensor) -> tuple[tf.Tensor, ...]:
        distances = squared_distances(centre, start, rows)
        block = _rows(*distances, pair_masks(gallery.labels, start, rows), terms)
        values, coefficients, log_weights = _judge_rows(block, terms, form)
        queries = tf.slice(centre.vectors, [start, 0], [rows, tf.shape(centre.vectors)[1]])
        pulled = product(coefficients, centre.vectors)
        directions = row_sums(coefficients)[:, None] * queries - pulled
        return values, directions, log_weights

    judged = Judgement(
        *in_blocks(
            judge_block,
            (tf.float64, form.dtype, tf.float64),
            gallery.first,
            count,
            rows_at_a_time(gallery.embeddings, form.block_size),
        )
    )
    # 0 times the sum is NaN if an embedding is not finite; such a batch must not look like a loss. The
    # directions hold NaN then by themselves, through the mean.
    poison = 0.0 * tf.reduce_sum(centre.norms)
    uncertain = tf.math.is_nan(judged.values) & ~tf.math.is_nan(poison)
    judged = _judge_again(judged, uncertain, lambda row: _exact_row(gallery, row, unit, numbers, form))
    values, directions = judged.values * unit + tf.cast(poison, tf.float64), judged.directions
    if form.squared:
        values, directions = values * unit, directions * tf.cast(unit, form.dtype)
    return Judgement(values, tf.cast(directions, gallery.embeddings.dtype), judged.log_weights)


@functools.lru_cache(maxsize=64)
def compiled_judge(form: Form) -> Callable[[Gallery, tf.Tensor, tf.Tensor], Judgement]:
    """`judge` compiled by XLA, which reads each distance from memory a few times instead of 20."""
    return tf.function(functools.partial(judge, form=form), reduce_retracing=True, jit_compile=True)


def _terms(numbers: tf.Tensor, unit: tf.Tensor, dtype: tf.DType) -> Terms:
    """The five numbers of `Parameters.numbers` in units and in `dtype`."""
    largest = dtype.max * _HEADROOM
    positive_bound, negative_bound, positive_temperature, temperature, balance = tf.unstack(numbers, 5)
    bounds = (tf.minimum(each / unit, largest) for each in (positive_bound, negative_bound))
    slopes = (tf.minimum(each * unit, largest) for each in (positive_temperature, temperature))
    return Terms(*(tf.cast(each, dtype) for each in (*bounds, *slopes, balance)))


def _rows(squares: tf.Tensor, norms: tf.Tensor, masks: tuple[tf.Tensor, tf.Tensor], terms: Terms) -> Rows:
    """Distances from their squares [Q, N], and which of them are uncertain.

    Those are pairs nearer than the product resolves and, in float64, pairs on a bound itself. A positive
    too near to resolve, but within its bound in any case, is harmless.
    """
    positive, negative = masks
    doubt = RESOLUTION[squares.dtype] * norms
    harmless = positive & (2.0 * doubt < tf.square(tf.maximum(terms.positive_bound, 0.0)))
    uncertain = (squares < doubt) & (positive | negative) & ~harmless
    if squares.dtype == tf.float64:
        uncertain |= positive & (tf.abs(squares - tf.square(terms.positive_bound)) < doubt)
        uncertain |= negative & (tf.abs(squares - tf.square(terms.negative_bound)) < doubt)
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


def _judge_again(
    judged: Judgement, uncertain: tf.Tensor, exactly: Callable[[tf.Tensor], Judgement]
) -> Judgement:
    """Replace the results of uncertain rows [Q], one at a time, by exact ones."""

    def replace(values, directions, log_weights, uncertain):  # type: ignore[no-untyped-def]
        row = tf.argmax(tf.cast(uncertain, tf.int32), output_type=tf.int32)
        state = values, directions, log_weights, uncertain
        return [
            tf.tensor_scatter_nd_update(each, row[None, None], new)
            for each, new in zip(state, (*exactly(row), [False]), strict=True)
        ]

    def loop() -> Judgement:
        state = tf.while_loop(lambda *state: tf.reduce_any(state[-1]), replace, [*judged, uncertain])
        return Judgement(*state[:-1])

    # Without the condition XLA would prepare every batch for the loop, which hardly any needs.
    return tf.cond(tf.reduce_any(uncertain), loop, lambda: judged)


def _exact_row(
    gallery: Gallery, row: tf.Tensor, unit: tf.Tensor, numbers: tf.Tensor, form: Form
) -> Judgement:
    """The judgement of one query, from differences in float64."""
    index = gallery.first + row
    apart = differences(gallery.embeddings[index], gallery.embeddings, unit)
    distances = tf.norm(apart, axis=1)[None, :]
    rows = Rows(distances, *pair_masks(gallery.labels, index, 1), tf.zeros_like(distances, tf.bool))
    values, coefficients, log_weights = _judge_rows(rows, _terms(numbers, unit, tf.float64), form)
    return Judgement(values, tf.cast(tf.matmul(coefficients, apart), form.dtype), log_weights)


def _log_of_sum(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """The log of exp a + exp b, -infinity where both are."""
    largest = tf.maximum(a, b)
    largest = tf.where(tf.math.is_finite(largest), largest, tf.zeros_like(largest))
    return largest + tf.math.log(tf.exp(a - largest) + tf.exp(b - largest))
