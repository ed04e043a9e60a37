"""What the Keras losses of this room have in common."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rll_tf.losses.degenerate import check_pairs
from rll_tf.losses.inputs import as_batch, labels_from_keras
from rll_tf.losses.pairwise import unit


class BatchLoss(keras.losses.Loss):
    """A loss that gets its labels as they are: Keras casts them to the loss's dtype, where large ids collide.

    `call` returns one value per query, [N], or a scalar for the whole batch, which then goes through Keras's
    own weighting, reduction and scaling for distribution. The attributes named in `parameters` make the
    configuration, with `normalize` where a loss has it.

    A loss of the pairs in a batch warns once where a batch has none, unless XLA compiles it or there are
    several replicas.
    """

    parameters: tuple[str, ...] = ()
    needs_pairs = False  # positive and negative ones, of labels [N] and embeddings [N, D]
    normalize: bool | None = None  # whether embeddings are made unit vectors first; None: no such argument

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._has_warned = False

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """The reduced loss of labels [N] or [N, 1] and what `call` takes besides."""
        outputs = tf.convert_to_tensor(y_pred)
        if self.dtype == "float64":
            outputs = tf.cast(outputs, tf.float64)
        labels = labels_from_keras(y_true)
        if self.needs_pairs:
            labels, outputs = as_batch(labels, outputs)
            check_pairs(labels, self._warn)
        values = self.call(labels, unit(outputs) if self.normalize else outputs)
        if sample_weight is not None and values.shape.rank == 0:
            raise ValueError(
                f"{type(self).__name__} takes no sample_weight: it is one number for the whole batch"
            )
        # Mining passes NaN over: nothing compares with it. In the logs it must show.
        finite = tf.reduce_all(tf.math.is_finite(outputs))
        values += tf.where(finite, tf.zeros([], values.dtype), np.nan)
        if values.shape.rank == 0 and self.reduction not in (None, "none"):
            values = values[None]  # Keras divides no scalar by the number of replicas
        reduced = _Values(name=self.name, reduction=self.reduction, dtype=self.dtype)
        return reduced(values, values, sample_weight=sample_weight)

    def _warn(self, message: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(f"{type(self).__name__}: {message}", stacklevel=2)

    def arguments(self) -> dict[str, Any]:
        """The parameters and their values."""
        return {name: getattr(self, name) for name in self.parameters}

    def get_config(self) -> dict[str, Any]:
        """Everything that makes an equal loss."""
        normalize = {} if self.normalize is None else {"normalize": self.normalize}
        return {**super().get_config(), "dtype": self.dtype, **self.arguments(), **normalize}


class _Values(keras.losses.Loss):
    """Values computed already, to be weighted and reduced as Keras does it."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return y_pred
