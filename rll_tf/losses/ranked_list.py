"""Ranked List Loss (Wang et al., CVPR 2019), equations 8 to 14."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from rll_tf.losses.batch import as_batch, comparable
from rll_tf.losses.blocks import ALL
from rll_tf.losses.judge import Form, Gallery, compiled, judge, judge_and_weigh, weigh
from rll_tf.losses.replicas import gather_batch, gather_values, has_replicas
from rll_tf.losses.variants import Parameters, checked_block_size

# Up to this many embeddings float64 costs next to nothing, and compiling would cost more than it saves.
_SMALL_GALLERY = 128
# Above this temperature the rounding of float32 distances, 2e-7, shows in the weights exp(-T d).
_STEEP = 100.0


def ranked_list_loss(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    *,
    alpha: float = 1.2,
    margin: float = 0.4,
    temperature: float = 10.0,
    variant: str = "paper",
    positive_temperature: float = 0.0,
    balance: float = 0.5,
    block_size: int | None = None,
    global_gallery: bool = True,
) -> tf.Tensor:
    """Ranked List Loss of every query of a batch, each embedding being a query once.

    With d_ij = |f_i - f_j|, mined positives P*_i = {j != i, y_j = y_i, d_ij > alpha - m} and mined
    negatives N*_i = {y_j != y_i, d_ij < alpha}:

        L_P,i = mean over P*_i of (d_ij - (alpha - m))                                      (Eq. 11)
        L_N,i = sum over N*_i of (w_ij / sum w) (alpha - d_ij),  w_ij = exp(T (alpha - d_ij))
                                                                                            (Eq. 9, 12)
        L_i = L_P,i + L_N,i                                                                 (Eq. 13)

    and an empty set contributes exactly 0. While i is the query the other embeddings and the weights
    are constants, so with u_ij = (f_i - f_j) / d_ij (0 where d_ij = 0)

        dL_i/df_i = mean over P*_i of u_ij - sum over N*_i of (w_ij / sum w) u_ij.

    The variants. "paper" is the above. The authors' two public releases weight queries by how much
    they mine, omega_i = W_i / sum_k W_k with W_i = |P*_i| + sum over N*_i of w_ij held constant, and
    return N omega_i / 2 times L_i:

        variant         a positive adds        a negative adds        mined beyond, within
        "paper"         d - (alpha - m)        alpha - d              alpha - m, alpha
        "release2019"   (d² - (alpha - m)²)/2  (alpha² - d²)/2        alpha - m, alpha
        "release2020"   d - (1 - m/2)          (1 + m/2) - d          1 - m/2, 1 + m/2  (also in w_ij)

    The tables of the CVPR 2019 paper come from the code of the 2019 release; neither release computed
    the equations as the paper prints them.

    pytorch-metric-learning's RankedListLoss returns half of these values (its two weights sum to 1),
    within 1e-3, and differs otherwise: it takes 0 to mean "not mined" and so drops a negative at
    distance 0, adds 1e-5 a pair to both sums of weights, lets gradient through the gallery and the
    weights, and warns above T = 5, where its weights may overflow; here only their ratios are formed.

    Distances are computed in float64 for up to 128 embeddings, for temperatures above 100 and for
    float64 embeddings, otherwise in float32. Queries whose result the rounding of float32 may show in,
    by a pair near a bound or two embeddings near each other, are then judged again in float64, and
    those with a pair that even its matrix product can't resolve, such as copies of an embedding in two
    classes, from differences, one by one: at N = 1,024 about a millisecond each. A larger batch is
    compiled by XLA when it is first seen.

    Args:
        labels: [N] or [N, 1] integers of any width, or strings; never cast to floating point.
        embeddings: [N, D] floating point; half precision is raised to float32 first.
        alpha: the distance that negatives are pushed beyond.
        margin: m; positives are pulled within alpha - m. With m = alpha every positive is mined.
        temperature: T >= 0; 0 weights all mined negatives alike, 10^4 leaves the hardest.
        variant: "paper", "release2019" or "release2020".
        positive_temperature: weights mined positives by exp(T_p (d_ij - (alpha - m))), as the journal
            version does; 0 weights them alike.
        balance: lambda in [0, 1] of the journal version; L_i = 2 ((1 - lambda) L_P,i + lambda L_N,i),
            twice its combination so that 1/2 is Eq. 13.
        block_size: how many queries are judged at a time, which bounds memory by N times it; None
            chooses. The result does not depend on it beyond rounding.
        global_gallery: inside a replica of a `tf.distribute` strategy, judge this replica's queries
            against the embeddings of all replicas; False keeps to its own.

    Returns:
        [N] float32, one value a query (under a strategy, of this replica's queries); the mean over all
        queries is Eq. 14. Values too large for a sum of N in float32 are cut to its largest number / N.

    Raises:
        ValueError: shapes, types or parameters are not as above; where operations run eagerly, also an
            embedding that is not finite. Inside a `tf.function` such a batch gives NaN for every query.
        NotImplementedError: a second derivative is asked for.
    """
    parameters = Parameters(alpha, margin, temperature, variant, positive_temperature, balance)
    block_size = checked_block_size(block_size)
    labels, embeddings = as_batch(labels, embeddings)
    replica = tf.distribute.get_replica_context()
    if not tf.executing_eagerly() or replica is None or replica.num_replicas_in_sync > 1:
        return _loss(labels, embeddings, parameters, block_size, global_gallery)
    values = _traced_loss(parameters, block_size)(labels, embeddings)
    if not bool(tf.reduce_all(tf.math.is_finite(values))):
        raise ValueError("embeddings must be finite: got NaN or infinity")
    return values


def _loss(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    parameters: Parameters,
    block_size: int | None,
    global_gallery: bool,
) -> tf.Tensor:
    """The values [N] of a checked batch, with their gradient."""
    gallery = Gallery(labels, tf.stop_gradient(embeddings), tf.zeros([], tf.int32))
    if global_gallery:
        gallery = Gallery(*gather_batch(labels, gallery.embeddings))
    gallery = gallery._replace(labels=comparable(gallery.labels))

    @tf.custom_gradient
    def loss(queries):  # type: ignore[no-untyped-def]
        count = queries.shape[0] or tf.shape(queries)[0]
        values, directions = _judge(gallery, count, parameters, block_size, global_gallery)
        return values, lambda upstream: _chain(upstream, directions, queries)

    return loss(embeddings)


@functools.lru_cache(maxsize=64)
def _traced_loss(parameters: Parameters, block_size: int | None) -> Callable[..., tf.Tensor]:
    """`_loss` as a graph for eager callers, which spares them its operations one by one."""

    def loss(labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        return _loss(labels, embeddings, parameters, block_size, global_gallery=False)

    return tf.function(loss, reduce_retracing=True)


def _judge(
    gallery: Gallery,
    count: int | tf.Tensor,
    parameters: Parameters,
    block_size: int | None,
    global_gallery: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Values [Q] and dL_i/df_i [Q, D]: of small galleries in float64; larger ones are compiled."""
    numbers = tf.constant(parameters.numbers, tf.float64)
    steep = max(parameters.temperature, parameters.positive_temperature) > _STEEP
    wide = steep or gallery.embeddings.dtype == tf.float64
    small_form = Form.of(parameters, ALL if block_size is None else block_size, tf.float64)
    large_form = Form.of(parameters, block_size, tf.float64 if wide else tf.float32)
    # Weights that depend on other replicas' queries are not part of what is compiled.
    apart = parameters.reweighted and global_gallery and has_replicas()
    function = judge if apart else judge_and_weigh

    def small() -> tuple[tf.Tensor, ...]:
        return function(gallery, count, numbers, small_form)

    def large() -> tuple[tf.Tensor, ...]:
        return compiled(function, large_form)(gallery, count, numbers)

    size = gallery.labels.shape[0]
    if size is None:
        judged = tf.cond(tf.size(gallery.labels) <= _SMALL_GALLERY, small, large)
    else:
        judged = small() if size <= _SMALL_GALLERY else large()
    return weigh(judged, gather_values(judged.log_weights), gallery, large_form) if apart else judged


@tf.custom_gradient
def _chain(upstream: tf.Tensor, directions: tf.Tensor, queries: tf.Tensor):  # type: ignore[no-untyped-def]
    """The gradient for `queries`, which cannot be differentiated again."""

    def refuse(*_: Any) -> None:
        raise NotImplementedError(
            "ranked_list_loss has no second derivative: its gradient takes the mined sets, the weights and "
            "the gallery as constants"
        )

    return tf.cast(upstream, directions.dtype)[:, None] * directions, refuse
