"""What the Keras losses of this room have in common."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rll_tf.losses.inputs import labels_from_keras


class BatchLoss(keras.losses.Loss):
    """A loss that gets its labels as they are: Keras casts them to the loss's dtype, where large ids collide.

    `call` returns one value a query, [N], or a scalar for the whole batch, which then goes through Keras's
    own weighting, reduction and scaling for distribution. The attributes named in `parameters` make the
    configuration.
    """

    parameters: tuple[str, ...] = ()

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """The reduced loss of labels [N] or [N, 1] and what `call` takes besides."""
        outputs = tf.convert_to_tensor(y_pred)
        if self.dtype == "float64":
            outputs = tf.cast(outputs, tf.float64)
        values = self.call(labels_from_keras(y_true), outputs)
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

    def arguments(self) -> dict[str, Any]:
        """The parameters and their values."""
        return {name: getattr(self, name) for name in self.parameters}

    def get_config(self) -> dict[str, Any]:
        """Everything that makes an equal loss."""
        return {**super().get_config(), "dtype": self.dtype, **self.arguments()}


class _Values(keras.losses.Loss):
    """Values computed already, to be weighted and reduced as Keras does it."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return y_pred
