"""The losses as Keras losses."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from rll_tf.losses.inputs import labels_from_keras
from rll_tf.losses.ranked_list import Parameters, ranked_list_loss


class BatchLoss(keras.losses.Loss):
    """A loss that gets its labels as they are: Keras casts them to the loss's dtype, where large ids collide.

    The values of `call` then go through Keras's own weighting, reduction and scaling for distribution. The
    attributes named in `parameters` make the configuration.
    """

    parameters: tuple[str, ...] = ()

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """The reduced loss of labels [N] or [N, 1] and embeddings [N, D]."""
        embeddings = tf.convert_to_tensor(y_pred)
        if self.dtype == "float64":
            embeddings = tf.cast(embeddings, tf.float64)
        values = self.call(labels_from_keras(y_true), embeddings)
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


@keras.saving.register_keras_serializable(package="rll_tf")
class RankedListLoss(BatchLoss):
    """`ranked_list_loss`, whose docstring gives the formula, for `model.compile(loss=...)`.

    Strings as labels come to `fit` in a `tf.data.Dataset`; under a strategy of several replicas `fit` takes
    integers only, as Keras averages its first batch, and the batches of replicas should be equally long.

    Args:
        alpha, margin, temperature, variant, positive_temperature, balance, block_size, global_gallery:
            as for `ranked_list_loss`.
        reduction, name: as for every Keras loss.
        dtype: "float64" computes distances and the loss in it, whatever the embeddings' dtype is.

    Raises:
        ValueError: the loss is not defined for these parameters.
    """

    parameters = (*(field.name for field in dataclasses.fields(Parameters)), "global_gallery")

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
        checked = Parameters(alpha, margin, temperature, variant, positive_temperature, balance, block_size)
        for field in dataclasses.fields(checked):
            setattr(self, field.name, getattr(checked, field.name))
        self.global_gallery = global_gallery

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value a query, [N]."""
        return ranked_list_loss(y_true, y_pred, **self.arguments())
