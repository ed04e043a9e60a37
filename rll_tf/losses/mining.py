"""What the loss mines, as Keras metrics: a loss of 0 should be seen to come from nothing left to mine."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from rll_tf.losses.gallery import Gallery, gallery_of
from rll_tf.losses.inputs import as_batch, labels_from_keras
from rll_tf.losses.pairwise import for_all_queries, row_sums, unit
from rll_tf.losses.ranked_list import Parameters, mine


def mined_counts(
    labels: Any,
    embeddings: Any,
    *,
    alpha: float = 1.2,
    margin: float = 0.4,
    variant: str = "paper",
    global_gallery: bool = True,
) -> tuple[tf.Tensor, tf.Tensor]:
    """How many non-trivial positives |P*_i| and negatives |N*_i| each query has: two [N] float32.

    Labels [N], embeddings [N, D] and parameters are those of `ranked_list_loss`, which compares embeddings as
    they are.
    """
    parameters = Parameters(alpha, margin, variant=variant)
    gallery = gallery_of(*as_batch(labels, tf.stop_gradient(embeddings)), global_gallery)
    counts = for_all_queries(_count, parameters, outputs=2)(gallery)
    return tuple(tf.cast(each, tf.float32) for each in counts)


def _count(rows: tf.Tensor, gallery: Gallery, p: Parameters) -> tuple[tf.Tensor, ...]:
    return tuple(row_sums(tf.cast(mined, gallery.embeddings.dtype)) for mined in mine(rows, gallery, p)[1:])


class _Mined(keras.metrics.Mean):
    """The mean over queries of |P*_i| or |N*_i|, or of whether there is any; arguments as for the class."""

    default_name: str
    of_positives: bool
    as_share: bool

    def __init__(
        self,
        alpha: float = 1.2,
        margin: float = 0.4,
        *,
        variant: str = "paper",
        global_gallery: bool = True,
        normalize: bool = True,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name or self.default_name, dtype=dtype)
        Parameters(alpha, margin, variant=variant)  # raises where the loss would
        self.arguments: dict[str, Any] = dict(
            alpha=alpha, margin=margin, variant=variant, global_gallery=global_gallery
        )
        self.normalize = normalize

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count what the batch of labels [N] and embeddings [N, D] mines."""
        labels, embeddings = as_batch(labels_from_keras(y_true), y_pred)
        embeddings = unit(embeddings) if self.normalize else embeddings
        positives, negatives = mined_counts(labels, embeddings, **self.arguments)
        counts = positives if self.of_positives else negatives
        values = tf.cast(counts > 0.0, tf.float32) if self.as_share else counts
        super().update_state(values, sample_weight=sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Everything that makes an equal metric."""
        return {**super().get_config(), **self.arguments, "normalize": self.normalize}


@keras.saving.register_keras_serializable(package="rll_tf")
class PositiveShare(_Mined):
    """The share of queries with a non-trivial positive, one farther than alpha - m."""

    default_name, of_positives, as_share = "positive_share", True, True


@keras.saving.register_keras_serializable(package="rll_tf")
class NegativeShare(_Mined):
    """The share of queries with a non-trivial negative, one nearer than alpha."""

    default_name, of_positives, as_share = "negative_share", False, True


@keras.saving.register_keras_serializable(package="rll_tf")
class PositiveCount(_Mined):
    """The mean number of non-trivial positives per query."""

    default_name, of_positives, as_share = "positive_count", True, False


@keras.saving.register_keras_serializable(package="rll_tf")
class NegativeCount(_Mined):
    """The mean number of non-trivial negatives per query."""

    default_name, of_positives, as_share = "negative_count", False, False


def mining_metrics(alpha: float = 1.2, margin: float = 0.4, **arguments: Any) -> list[keras.metrics.Metric]:
    """The four metrics of what a `RankedListLoss` with these parameters mines, for `compile(metrics=...)`."""
    kinds = (PositiveShare, NegativeShare, PositiveCount, NegativeCount)
    return [kind(alpha, margin, **arguments) for kind in kinds]
