"""What the loss mines, as Keras metrics: a loss of 0 should be seen to come from nothing left to mine."""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from rll_tf.losses.batch import as_batch, comparable, labels_from_keras
from rll_tf.losses.blocks import in_blocks, pair_masks, rows_at_a_time
from rll_tf.losses.judge import Gallery
from rll_tf.losses.pairwise import centred, row_sums, squared_distances
from rll_tf.losses.replicas import gather_batch
from rll_tf.losses.variants import Parameters


def mined_counts(
    labels: Any,
    embeddings: Any,
    *,
    alpha: float = 1.2,
    margin: float = 0.4,
    variant: str = "paper",
    global_gallery: bool = True,
) -> tuple[tf.Tensor, tf.Tensor]:
    """How many non-trivial positives |P*_i| and negatives |N*_i| each query has.

    Distances are float32 from one matrix product: a pair within its rounding of a bound may be counted
    on either side.

    Args:
        labels: [N] or [N, 1], as for `ranked_list_loss`.
        embeddings: [N, D], as for `ranked_list_loss`.
        alpha: as for the loss, like the rest.
        margin: m.
        variant: "paper", "release2019" or "release2020".
        global_gallery: whether the embeddings of all replicas are looked at.

    Returns:
        Two [N] float32.
    """
    parameters = Parameters(alpha, margin, variant=variant)
    labels, embeddings = as_batch(labels, embeddings)
    gallery = Gallery(labels, embeddings, tf.zeros([], tf.int32))
    if global_gallery:
        gallery = Gallery(*gather_batch(labels, embeddings))
    gallery = Gallery(comparable(gallery.labels), tf.stop_gradient(gallery.embeddings), gallery.first)
    bounds = tf.constant([parameters.positive_bound, parameters.negative_bound], tf.float64)
    return tuple(_counts(gallery, labels.shape[0] or tf.size(labels), bounds))


@functools.partial(tf.function, reduce_retracing=True, jit_compile=True)
def _counts(gallery: Gallery, queries: int | tf.Tensor, bounds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    centre = centred(gallery.embeddings, tf.float32)
    beyond, within = tf.unstack(tf.cast(bounds / centre.unit, tf.float32))

    def count(start: tf.Tensor, rows: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        labels = tf.slice(gallery.labels, [start], [rows])
        positive, negative = pair_masks(gallery.labels, labels, start + tf.range(rows))
        distances = tf.sqrt(squared_distances(centre, centre.slice(start, rows))[0])
        mined = positive & (distances > beyond), negative & (distances < within)
        return tuple(row_sums(tf.cast(each, tf.float32)) for each in mined)

    types = tf.float32, tf.float32
    return in_blocks(count, types, gallery.first, queries, rows_at_a_time(gallery.embeddings))


class _Mined(keras.metrics.Mean):
    """The mean over queries of something about |P*_i| or |N*_i|."""

    def __init__(
        self,
        alpha: float = 1.2,
        margin: float = 0.4,
        *,
        variant: str = "paper",
        global_gallery: bool = True,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name or self.default_name, dtype=dtype)
        parameters = Parameters(alpha, margin, variant=variant)
        self.alpha = parameters.alpha
        self.margin = parameters.margin
        self.variant = variant
        self.global_gallery = global_gallery

    default_name: str
    of_positives: bool
    as_share: bool

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count what the batch of labels [N] and embeddings [N, D] mines."""
        counts = mined_counts(
            labels_from_keras(y_true),
            y_pred,
            alpha=self.alpha,
            margin=self.margin,
            variant=self.variant,
            global_gallery=self.global_gallery,
        )[0 if self.of_positives else 1]
        values = tf.cast(counts > 0.0, tf.float32) if self.as_share else counts
        super().update_state(values, sample_weight=sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Everything that makes an equal metric."""
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "margin": self.margin,
            "variant": self.variant,
            "global_gallery": self.global_gallery,
        }


@keras.saving.register_keras_serializable(package="rll_tf")
class PositiveShare(_Mined):
    """The share of queries with a non-trivial positive, one farther than alpha - m.

    Args:
        alpha, margin, variant, global_gallery: as for the loss it watches.
        name, dtype: as for every Keras metric.
    """

    default_name, of_positives, as_share = "positive_share", True, True


@keras.saving.register_keras_serializable(package="rll_tf")
class NegativeShare(_Mined):
    """The share of queries with a non-trivial negative, one nearer than alpha; arguments as PositiveShare."""

    default_name, of_positives, as_share = "negative_share", False, True


@keras.saving.register_keras_serializable(package="rll_tf")
class PositiveCount(_Mined):
    """The mean number of non-trivial positives a query; arguments as PositiveShare."""

    default_name, of_positives, as_share = "positive_count", True, False


@keras.saving.register_keras_serializable(package="rll_tf")
class NegativeCount(_Mined):
    """The mean number of non-trivial negatives a query; arguments as PositiveShare."""

    default_name, of_positives, as_share = "negative_count", False, False


def mining_metrics(alpha: float = 1.2, margin: float = 0.4, **arguments: Any) -> list[keras.metrics.Metric]:
    """The four metrics of what a loss with these parameters mines, for `model.compile(metrics=...)`.

    They count once for all four: one matrix product of the two that a loss needs.
    """
    kinds = (PositiveShare, NegativeShare, PositiveCount, NegativeCount)
    return [kind(alpha, margin, **arguments) for kind in kinds]
