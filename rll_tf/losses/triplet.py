"""Triplet losses with semi-hard and with hard negatives, under TensorFlow Addons' names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from rll_tf.losses.gallery import Gallery, global_batch
from rll_tf.losses.inputs import as_batch
from rll_tf.losses.keras_loss import BatchLoss
from rll_tf.losses.pairwise import cosines_within, distances_within, pairs_within, row_sums

Metric = str | Callable[[tf.Tensor], tf.Tensor]

_METRICS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "L2": distances_within,
    "squared-L2": functools.partial(distances_within, squared=True),
    "angular": lambda embeddings: tf.maximum(1.0 - cosines_within(embeddings), 0.0),
}


def triplet_semihard_loss(
    y_true: tf.Tensor, y_pred: tf.Tensor, margin: float = 1.0, distance_metric: Metric = "L2"
) -> tf.Tensor:
    """Triplet loss with semi-hard negatives (Schroff et al. 2015, FaceNet, section 3).

    For every ordered pair of an anchor a and a positive p the negative n is the nearest that is farther
    than p, or the farthest of all where none is:

        L = mean over the pairs (a, p) of max(0, m + d_ap - d_an).

    FaceNet takes squared distances of unit vectors and m = 0.2; the defaults are those of TensorFlow
    Addons. Memory is N², time N² times the size of the largest class.

    Args:
        y_true: labels, [N] or [N, 1] integers of any width, or strings.
        y_pred: embeddings, [N, D] floating point, normalised by the caller where that is meant.
        margin: m.
        distance_metric: "L2", "squared-L2", "angular" (1 - cosine), or a function of embeddings [N, D] that
            returns distances [N, N].

    Returns:
        A scalar, float32 or, for float64 embeddings, float64; 0 for a batch without positives or without
        negatives. In a replica of a strategy the anchors are the replica's, the others those of all.

    Raises:
        ValueError: shapes, types or the metric are not as above.
    """
    return tf.reduce_mean(_values(_semihard, y_true, y_pred, distance_metric, margin))


def triplet_hard_loss(
    y_true: tf.Tensor,
    y_pred: tf.Tensor,
    margin: float = 1.0,
    soft: bool = False,
    distance_metric: Metric = "L2",
) -> tf.Tensor:
    """Triplet loss with the hardest positive and the hardest negative (Hermans et al. 2017, Eq. 5).

    L = mean over all anchors a of max(0, m + max_p d_ap - min_n d_an),

    or, if `soft`, of log(1 + exp(max_p d_ap - min_n d_an)). The hardest positive of an anchor without
    positives is itself, as in TensorFlow Addons; an anchor without negatives counts 0.

    Args:
        y_true: labels, [N] or [N, 1] integers of any width, or strings.
        y_pred: embeddings, [N, D] floating point.
        margin: m.
        soft: whether to take the soft margin, which has no m.
        distance_metric: as for `triplet_semihard_loss`.

    Returns:
        A scalar, as `triplet_semihard_loss`.

    Raises:
        ValueError: shapes, types or the metric are not as above.
    """
    return tf.reduce_mean(_values(_hard, y_true, y_pred, distance_metric, margin, soft))


def _values(
    compiled: Any, labels: Any, embeddings: Any, metric: Metric, *parameters: float | bool
) -> tf.Tensor:
    """One value an anchor, [N], whose mean is the loss."""
    if not callable(metric) and metric not in _METRICS:
        raise ValueError(
            f"distance_metric must be one of {', '.join(_METRICS)} or a function: got {metric!r}"
        )
    batch = global_batch(*as_batch(labels, embeddings))
    # A user's function may hold what XLA cannot compile.
    apply = compiled.python_function if callable(metric) else compiled
    return tf.gather(apply(batch, metric, *parameters), batch.rows)


def _distances(batch: Gallery, metric: Metric) -> tf.Tensor:
    return metric(batch.embeddings) if callable(metric) else _METRICS[metric](batch.embeddings)


@functools.partial(tf.function, jit_compile=True, reduce_retracing=True)
def _semihard(batch: Gallery, metric: Metric, margin: float) -> tf.Tensor:
    """N / |pairs| times the sum of each anchor's hinges, [N]."""
    positive, negative = pairs_within(batch.labels)

    @tf.custom_gradient
    def hinges(d: tf.Tensor):  # type: ignore[no-untyped-def]
        values, coefficients = _semihard_hinges(d, positive, negative, margin)
        return values, lambda upstream: upstream[:, None] * coefficients

    values = hinges(_distances(batch, metric))
    share = tf.math.divide_no_nan(tf.cast(tf.size(batch.labels), values.dtype), _count(positive, values))
    return share * values


def _semihard_hinges(
    d: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor, margin: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """The sum of each anchor's hinges, [N], and its derivative by each distance, [N, N].

    Every turn takes the nearest remaining positive of all anchors at once. Equally near negatives share
    the derivative.
    """
    farthest = tf.reduce_max(tf.where(negative, d, -d.dtype.max), axis=1)
    turns = tf.reduce_max(tf.reduce_sum(tf.cast(positive, tf.int32), axis=1))
    has_negative = tf.reduce_any(negative, axis=1)

    def turn(number, remaining, values, coefficients):  # type: ignore[no-untyped-def]
        nearest = tf.reduce_min(tf.where(remaining, d, d.dtype.max), axis=1)
        taken = tf.cast(remaining & (d == nearest[:, None]), d.dtype)
        beyond = tf.reduce_min(tf.where(negative & (d > nearest[:, None]), d, d.dtype.max), axis=1)
        beyond = tf.where(beyond < d.dtype.max, beyond, farthest)
        pushed = tf.cast(negative & (d == beyond[:, None]), d.dtype)
        hinge = margin + nearest - beyond
        active = tf.cast((hinge > 0) & has_negative, d.dtype)
        times = active * row_sums(taken)
        push = tf.math.divide_no_nan(times, row_sums(pushed))
        coefficients += active[:, None] * taken - push[:, None] * pushed
        values += tf.where(times > 0, times * hinge, 0.0)
        return number + 1, remaining & (d > nearest[:, None]), values, coefficients

    start = 0, positive, 0.0 * row_sums(d), tf.zeros_like(d)  # NaN where a distance is not finite
    _, _, values, coefficients = tf.while_loop(lambda number, *_: number < turns, turn, start)
    return values, coefficients


@functools.partial(tf.function, jit_compile=True, reduce_retracing=True)
def _hard(batch: Gallery, metric: Metric, margin: float, soft: bool) -> tf.Tensor:
    """Each anchor's hinge, [N]."""
    d = _distances(batch, metric)
    positive, negative = pairs_within(batch.labels)
    farthest = tf.where(tf.reduce_any(positive, axis=1), _at_maximum(d, d, positive), 0.0)
    gap = farthest - _at_maximum(d, -d, negative)
    values = tf.nn.softplus(gap) if soft else tf.nn.relu(gap + margin)
    return tf.where(tf.reduce_any(negative, axis=1), values, 0.0)


def _at_maximum(d: tf.Tensor, score: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The distance of each row [N, N] where the masked score is largest, [N]."""
    index = tf.argmax(tf.where(mask, score, score.dtype.min), axis=1)
    return row_sums(tf.where(tf.one_hot(index, tf.shape(d)[1], True, False), d, 0.0))


def _count(mask: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """How many entries of a mask are true."""
    return tf.reduce_sum(tf.cast(mask, like.dtype))


class _TripletLoss(BatchLoss):
    """What both classes share: a metric that is a function goes through the configuration by its name."""

    distance_metric: Metric
    needs_pairs = True

    def get_config(self) -> dict[str, Any]:
        """Everything that makes an equal loss."""
        config = super().get_config()
        if callable(self.distance_metric):
            config["distance_metric"] = keras.saving.serialize_keras_object(self.distance_metric)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _TripletLoss:
        """The loss of a configuration; a function as metric must be registered with Keras."""
        metric = config["distance_metric"]
        if not isinstance(metric, str):
            metric = keras.saving.deserialize_keras_object(metric)
        return cls(**{**config, "distance_metric": metric})


@keras.saving.register_keras_serializable(package="rll_tf")
class TripletSemiHardLoss(_TripletLoss):
    """`triplet_semihard_loss` for `model.compile(loss=...)`, as in TensorFlow Addons.

    Args:
        margin, distance_metric: as for `triplet_semihard_loss`.
        normalize: divide embeddings by their Euclidean norms first, as FaceNet does and Addons does not.
        name, reduction, dtype: as for every Keras loss; the values reduced are one an anchor.
    """

    parameters = ("margin", "distance_metric")

    def __init__(
        self,
        margin: float = 1.0,
        distance_metric: Metric = "L2",
        name: str | None = None,
        *,
        normalize: bool = False,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin, self.distance_metric, self.normalize = margin, distance_metric, normalize

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value an anchor, [N]."""
        return _values(_semihard, y_true, y_pred, self.distance_metric, self.margin)


@keras.saving.register_keras_serializable(package="rll_tf")
class TripletHardLoss(_TripletLoss):
    """`triplet_hard_loss` for `model.compile(loss=...)`, as in TensorFlow Addons.

    Args:
        margin, soft, distance_metric: as for `triplet_hard_loss`.
        name, reduction, dtype: as for every Keras loss; the values reduced are one an anchor.
    """

    parameters = ("margin", "soft", "distance_metric")

    def __init__(
        self,
        margin: float = 1.0,
        soft: bool = False,
        distance_metric: Metric = "L2",
        name: str | None = None,
        *,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin, self.soft, self.distance_metric = margin, soft, distance_metric

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value an anchor, [N]."""
        return _values(_hard, y_true, y_pred, self.distance_metric, self.margin, self.soft)
