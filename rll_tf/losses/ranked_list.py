"""Ranked List Loss: the definition, and the function that applies it to a batch."""

from __future__ import annotations

import dataclasses
import functools
import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rll_tf.losses.gallery import Gallery, gallery_of, gather
from rll_tf.losses.inputs import as_batch
from rll_tf.losses.keras_loss import BatchLoss
from rll_tf.losses.memory import CrossBatchMemory
from rll_tf.losses.pairwise import distances, for_all_queries, pair_masks, product, row_sums

VARIANTS = ("paper", "release2019", "release2020")


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What `ranked_list_loss` takes besides a batch; its docstring explains each.

    Raises:
        ValueError: the loss is not defined for these values.
    """

    alpha: float = 1.2
    margin: float = 0.4
    temperature: float = 10.0
    variant: str = "paper"
    positive_temperature: float = 0.0
    balance: float = 0.5
    block_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("alpha", "margin", "temperature", "positive_temperature", "balance"):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, numbers.Real)
                or not np.isfinite(float(value))
            ):
                raise ValueError(f"{name} must be a finite number: got {value!r}")
            if value < 0:
                raise ValueError(f"{name} must not be negative: got {value!r}")
            object.__setattr__(self, name, float(value))
        if self.balance > 1:
            raise ValueError(f"balance must be between 0 and 1: got {self.balance!r}")
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}: got {self.variant!r}")
        if self.block_size is not None:
            if not isinstance(self.block_size, numbers.Integral) or self.block_size < 1:
                raise ValueError(f"block_size must be a positive integer or None: got {self.block_size!r}")
            object.__setattr__(self, "block_size", int(self.block_size))

    @property
    def positive_bound(self) -> float:
        """Positives farther than this are mined."""
        return 1 - self.margin / 2 if self.variant == "release2020" else self.alpha - self.margin

    @property
    def negative_bound(self) -> float:
        """Negatives nearer than this are mined."""
        return 1 + self.margin / 2 if self.variant == "release2020" else self.alpha


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
    gallery: tuple[tf.Tensor, ...] | None = None,
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

    The tables of the CVPR 2019 paper come from the 2019 release's code.

    Precision. Distances come from one matrix product in float32, or in float64 where the embeddings are
    float64. A pair within its rounding of a bound may fall on either side of it, and pairs whose squared
    distance is below 8 eps of their squared norms about the gallery's mean (for unit norm d < 0.0014 in
    float32, 6e-8 in float64) count as coincident: distance 0, no direction. Norms from 1e-15 to 1e15 are in
    range. XLA compiles the loss when a batch of a new size is first seen.

    Args:
        labels: [N] or [N, 1] integers of any width, or strings; never cast to floating point.
        embeddings: [N, D] floating point; half precision is raised to float32 first. They are compared as
            they are: the paper's bounds are meant for unit norm, which `RankedListLoss` gives them.
        alpha: the distance that negatives are pushed beyond.
        margin: m; positives are pulled within alpha - m. With m = alpha every positive is mined.
        temperature: T >= 0; 0 weights all mined negatives alike, 10^4 leaves the hardest.
        variant: "paper", "release2019" or "release2020".
        positive_temperature: weights mined positives by exp(T_p (d_ij - (alpha - m))), as the journal does.
        balance: lambda of the journal version, 0 to 1: L_i = 2 ((1 - lambda) L_P,i + lambda L_N,i), twice its
            combination so that 1/2 is Eq. 13.
        block_size: how many queries are compared at a time, which bounds memory by N times it; None chooses.
        global_gallery: in a replica of a `tf.distribute` strategy, compare with the batches of all replicas.
        gallery: labels [M] and embeddings [M, D] to compare with besides the batch, such as those of earlier
            batches. They are constants. A third tensor, [M] bool, marks those that count.

    Returns:
        [N] float32, or float64 for float64 embeddings, one value per query (under a strategy, of this
        replica's queries); the mean over all queries is Eq. 14.

    Raises:
        ValueError: shapes, types or parameters are not as above; where operations run eagerly, also an
            embedding that is not finite. Inside a `tf.function` such a batch gives NaN for every query.
        NotImplementedError: a second derivative is requested.
    """
    p = Parameters(alpha, margin, temperature, variant, positive_temperature, balance, block_size)
    labels, embeddings = as_batch(labels, embeddings)
    compared = gallery_of(labels, embeddings, global_gallery, gallery)
    compared = compared._replace(embeddings=tf.stop_gradient(compared.embeddings))

    @tf.custom_gradient
    def loss(queries):  # type: ignore[no-untyped-def]
        values, directions, log_weights = for_all_queries(compare, p, outputs=3)(compared)
        if variant != "paper":  # N omega_i / 2, 0 where nothing is mined
            every = gather(log_weights) if global_gallery else log_weights
            omega = tf.exp(log_weights - tf.reduce_logsumexp(every))
            weights = tf.where(log_weights > -np.inf, tf.cast(tf.size(every), omega.dtype) * omega / 2, 0.0)
            values, directions = weights * values, weights[:, None] * directions
        return values, lambda upstream: _gradient(upstream, directions, queries)

    values = loss(embeddings)
    if tf.executing_eagerly() and not bool(tf.reduce_all(tf.math.is_finite(values))):
        raise ValueError("embeddings must be finite: got NaN or infinity")
    return values


def compare(rows: tf.Tensor, gallery: Gallery, p: Parameters) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Eq. 8 to 14 for the queries at `rows` [Q] of a gallery of N, as `ranked_list_loss` explains them.

    Returns:
        L_i [Q], dL_i/df_i [Q, D], and the log of W_i, the sum of the weights of all that i mines, [Q].
    """
    queries = tf.gather(gallery.embeddings, rows)
    d, positive, negative = mine(rows, gallery, p)
    outside, inside = d - p.positive_bound, p.negative_bound - d
    pull, log_pull = _shares(positive, outside, p.positive_temperature)
    push, log_push = _shares(negative, inside, p.temperature)  # w_ij / sum w, Eq. 9
    pull, push = 2 * (1 - p.balance) * pull, 2 * p.balance * push
    coefficients = pull - push  # dL_i/df_i = sum_j c_ij (f_i - f_j)
    if p.variant == "release2019":  # (d² - b²) / 2 = (d - b) (d + b) / 2
        outside, inside = outside * (d + p.positive_bound) / 2, inside * (d + p.negative_bound) / 2
    else:  # of the unit vector u_ij
        coefficients /= d
    coefficients = tf.where(d > 0.0, coefficients, 0.0)
    values = row_sums(pull * outside + push * inside)  # Eq. 11 to 13
    values += 0.0 * row_sums(tf.square(queries))  # NaN if an embedding is not finite: the mean spreads it
    directions = row_sums(coefficients)[:, None] * queries - product(coefficients, gallery.embeddings)
    return values, directions, tf.reduce_logsumexp(tf.stack([log_pull, log_push]), axis=0)


def mine(rows: tf.Tensor, gallery: Gallery, p: Parameters) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Distances d_ij and the masks of P*_i and N*_i (Eq. 8), each [Q, N]."""
    d = distances(tf.gather(gallery.embeddings, rows), gallery.embeddings)
    positive, negative = pair_masks(rows, gallery)
    return d, positive & (d > p.positive_bound), negative & (d < p.negative_bound)


def _shares(mined: tf.Tensor, excess: tf.Tensor, temperature: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Softmax of T e over each row's mined pairs [Q, N], 0 where none is; log of the sum of exp(T e) [Q]."""
    if temperature == 0.0:
        weights, largest = tf.cast(mined, excess.dtype), tf.zeros([1, 1], excess.dtype)
    else:
        exponents = temperature * excess
        largest = tf.reduce_max(tf.where(mined, exponents, 0.0), axis=1, keepdims=True)
        weights = tf.where(mined, tf.exp(exponents - largest), 0.0)
    total = row_sums(weights)
    return weights * tf.math.divide_no_nan(1.0, total)[:, None], largest[:, 0] + tf.math.log(total)


@tf.custom_gradient
def _gradient(upstream: tf.Tensor, directions: tf.Tensor, queries: tf.Tensor):  # type: ignore[no-untyped-def]
    """The gradient for `queries`, which cannot be differentiated again."""

    def refuse(*_: Any) -> None:
        raise NotImplementedError("ranked_list_loss has no second derivative")

    return upstream[:, None] * directions, refuse


@keras.saving.register_keras_serializable(package="rll_tf")
class RankedListLoss(BatchLoss):
    """`ranked_list_loss`, whose docstring gives the formula, for `model.compile(loss=...)`.

    Embeddings are divided by their Euclidean norms first, as in the paper (section 3): `alpha` and `margin`
    are distances between unit vectors, which lie at most 2 apart. A network need not end in a normalising
    layer; to one that does it makes no difference. The gradient passes through the division, and is 0 along
    an embedding's own direction. Who compares embeddings afterwards should normalise them too, as
    `rll_tf.evaluation.retrieval_metrics(..., normalize=True)` does. A row of zeros stays as it is.

    A batch in which no class occurs twice, or with a single class, warns once.

    Strings as labels come to `fit` in a `tf.data.Dataset`; under a strategy of several replicas `fit` takes
    integers only, as Keras averages its first batch, and the batches of replicas should be equally long.
    `dtype="float64"` computes distances and the loss in it, whatever the embeddings' dtype is.

    Args:
        alpha, margin, temperature, variant, positive_temperature, balance, block_size, global_gallery: as for
            `ranked_list_loss`.
        normalize: False compares embeddings as they are.
        memory: how many embeddings of earlier steps each query is compared with besides; 0: none. They are
            constants, as the gallery is to a query (Eq. 13), so nothing about the loss changes. Keras's
            `evaluate` and `validation_data` add to them too: watch training with `RetrievalMetrics`.
        memory_start: the first step that uses them; before there are so many, those that there are.
        reduction, name, dtype: as for every Keras loss.

    Raises:
        ValueError: the loss is not defined for these parameters.
    """

    parameters = (*(field.name for field in dataclasses.fields(Parameters)), "global_gallery")
    needs_pairs = True

    def __init__(
        self,
        alpha: float = 1.2,
        margin: float = 0.4,
        temperature: float = 10.0,
        *,
        variant: str = "paper",
        positive_temperature: float = 0.0,
        balance: float = 0.5,
        block_size: int | None = None,
        global_gallery: bool = True,
        normalize: bool = True,
        memory: int = 0,
        memory_start: int = 0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "ranked_list_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        checked = Parameters(alpha, margin, temperature, variant, positive_temperature, balance, block_size)
        for field in dataclasses.fields(checked):
            setattr(self, field.name, getattr(checked, field.name))
        self.global_gallery, self.normalize = global_gallery, normalize
        self.memory, self.memory_start = memory, memory_start
        self.cross_batch_memory = CrossBatchMemory(memory, memory_start) if memory else None

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value per query, [N]."""
        loss = functools.partial(ranked_list_loss, y_true, y_pred, **self.arguments())
        if self.cross_batch_memory is None:
            return loss()
        return self.cross_batch_memory.compare(y_true, y_pred, lambda kept: loss(gallery=kept))

    def get_config(self) -> dict[str, Any]:
        """Everything that makes an equal loss, with an empty memory."""
        return {**super().get_config(), "memory": self.memory, "memory_start": self.memory_start}
