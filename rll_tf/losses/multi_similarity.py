"""Multi-Similarity loss with its mining."""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from rll_tf.losses.gallery import Gallery, global_batch
from rll_tf.losses.inputs import as_batch
from rll_tf.losses.keras_loss import BatchLoss
from rll_tf.losses.pairwise import cosines_within, pairs_within


def multi_similarity_loss(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    threshold: float = 0.5,
    epsilon: float | None = 0.1,
) -> tf.Tensor:
    """Multi-Similarity loss of every query of a batch (Wang et al. 2019, Eq. 11 to 15).

    With S the cosine, a query i keeps the positives P_i less similar than its most similar negative, and
    the negatives N_i more similar than its least similar positive, each with a slack:

        P_i = {p: S_ip - epsilon < max_n S_in},    N_i = {n: S_in + epsilon > min_p S_ip}
        L_i = 1/alpha log(1 + sum over P_i of exp(-alpha (S_ip - threshold)))
            + 1/beta  log(1 + sum over N_i of exp( beta  (S_in - threshold))).

    The paper's threshold is 1, that of its code 0.5 (with beta 40).

    Args:
        labels: [N] or [N, 1] integers of any width, or strings.
        embeddings: [N, D] floating point, of any norm.
        alpha: the weight of positives.
        beta: the weight of negatives.
        threshold: lambda, the cosine between positives and negatives.
        epsilon: the slack of mining; None keeps every pair.

    Returns:
        [N] float32, or float64 for float64 embeddings, one value per query (under a strategy, of this
        replica's queries), whose mean is the loss; with mining 0
        for a query without positives or without negatives.

    Raises:
        ValueError: shapes or types are not as above.
    """
    batch = global_batch(*as_batch(labels, embeddings))
    return tf.gather(_values(batch, alpha, beta, threshold, epsilon), batch.rows)


@functools.partial(tf.function, jit_compile=True, reduce_retracing=True)
def _values(batch: Gallery, alpha: float, beta: float, threshold: float, epsilon: float | None) -> tf.Tensor:
    return _of_similarities(batch.labels, cosines_within(batch.embeddings), alpha, beta, threshold, epsilon)


def _of_similarities(
    labels: tf.Tensor, cosines: tf.Tensor, alpha: float, beta: float, threshold: float, epsilon: float | None
) -> tf.Tensor:
    """One value per query [N] from the cosines of all pairs [N, N]."""
    positive, negative = pairs_within(labels)
    lowest = cosines.dtype.min / 4  # of what is masked: its exponential is 0
    if epsilon is not None:
        most_similar_negative = tf.reduce_max(tf.where(negative, cosines, lowest), axis=1, keepdims=True)
        least_similar_positive = tf.reduce_min(tf.where(positive, cosines, -lowest), axis=1, keepdims=True)
        positive &= cosines - epsilon < most_similar_negative
        negative &= cosines + epsilon > least_similar_positive
    pull = tf.reduce_logsumexp(tf.where(positive, -alpha * (cosines - threshold), lowest), axis=1)
    push = tf.reduce_logsumexp(tf.where(negative, beta * (cosines - threshold), lowest), axis=1)
    return tf.nn.softplus(pull) / alpha + tf.nn.softplus(push) / beta


@keras.saving.register_keras_serializable(package="rll_tf")
class MultiSimilarityLoss(BatchLoss):
    """`multi_similarity_loss`, whose docstring gives the formula, for `model.compile(loss=...)`.

    Args:
        alpha, beta, threshold, epsilon: as for `multi_similarity_loss`.
        reduction, name, dtype: as for every Keras loss.
    """

    parameters = ("alpha", "beta", "threshold", "epsilon")
    needs_pairs = True

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        beta: float = 50.0,
        threshold: float = 0.5,
        epsilon: float | None = 0.1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "multi_similarity_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.alpha, self.beta, self.threshold, self.epsilon = alpha, beta, threshold, epsilon

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value per query, [N]."""
        return multi_similarity_loss(y_true, y_pred, **self.arguments())
