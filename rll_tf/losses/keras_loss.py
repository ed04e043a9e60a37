"""Ranked List Loss as a Keras loss."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from rll_tf.losses.batch import labels_from_keras
from rll_tf.losses.ranked_list import ranked_list_loss
from rll_tf.losses.variants import Parameters, checked_block_size


@keras.saving.register_keras_serializable(package="rll_tf")
class RankedListLoss(keras.losses.Loss):
    """`ranked_list_loss`, whose docstring gives the formula, for `model.compile(loss=...)`.

    Labels reach the function as they are: Keras casts them to the loss's dtype, in which large ids
    collide. One value a query then goes through Keras's own weighting, reduction and scaling for
    distribution, so that `sample_weight` and every `reduction` mean what they mean elsewhere.

    Labels that are strings come to `fit` in a `tf.data.Dataset`, as Keras refuses arrays of them; under a
    strategy of several replicas `fit` takes neither strings nor booleans, because Keras averages its first
    batch: give integer ids there. Replicas should hold equally many pictures, `drop_remainder=True`: Keras
    takes the mean of the replicas' means.

    `keras.models.load_model` finds the class once `rll_tf` is imported.

    Args:
        alpha, margin, temperature, variant, positive_temperature, balance, block_size, global_gallery:
            as for `ranked_list_loss`.
        reduction, name, dtype: as for every Keras loss.

    Raises:
        ValueError: the loss is not defined for these parameters.
    """

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
        reduction: str | None = "sum_over_batch_size",
        name: str = "ranked_list_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        parameters = Parameters(alpha, margin, temperature, variant, positive_temperature, balance)
        self.alpha = parameters.alpha
        self.margin = parameters.margin
        self.temperature = parameters.temperature
        self.variant = parameters.variant
        self.positive_temperature = parameters.positive_temperature
        self.balance = parameters.balance
        self.block_size = checked_block_size(block_size)
        self.global_gallery = global_gallery
        self._reduce = _Values(name=name, reduction=reduction, dtype=dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """The reduced loss of labels [N] or [N, 1] and embeddings [N, D]."""
        values = self.call(y_true, y_pred)
        return self._reduce(values, values, sample_weight=sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] float32, one value a query."""
        return ranked_list_loss(labels_from_keras(y_true), y_pred, **self._arguments())

    def get_config(self) -> dict[str, Any]:
        """Everything that makes an equal loss."""
        return {**super().get_config(), "dtype": self.dtype, **self._arguments()}

    def _arguments(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha,
            "margin": self.margin,
            "temperature": self.temperature,
            "variant": self.variant,
            "positive_temperature": self.positive_temperature,
            "balance": self.balance,
            "block_size": self.block_size,
            "global_gallery": self.global_gallery,
        }


class _Values(keras.losses.Loss):
    """Values computed already, to be weighted and reduced as Keras does it."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return y_pred
