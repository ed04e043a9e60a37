"""SGD as Caffe does it, and its step schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


@keras.saving.register_keras_serializable("rll_tf")
class CaffeSGD(keras.optimizers.Optimizer):
    """Momentum SGD in which each layer has its own learning rate.

    For a weight w with gradient g (Caffe's sgd_solver.cpp):

        v ← momentum · v + rate · multiplier · (g + coupled_weight_decay · w)
        w ← w − v

    The rate is inside the momentum buffer, so that a step of the schedule leaves the steps already on their
    way as they are. The decay is part of the gradient (L2), not decoupled from it as in AdamW, so that it is
    multiplied too.

    Args:
        learning_rate: the rate or a schedule.
        momentum: at least 0 and below 1; the paper's is 0.9.
        coupled_weight_decay: the paper's is 1e-5. Keras's own `weight_decay` is decoupled.
        multipliers: layer's name -> multiplier of its rate; 1 for all others. The paper's is 10 for the new
            dense layers.
        **kwargs: those of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: momentum is out of bounds; on building, a multiplier's layer has no trainable weight.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.01,
        momentum: float = 0.9,
        coupled_weight_decay: float = 0.0,
        multipliers: Mapping[str, float] | None = None,
        name: str = "caffe_sgd",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1; got {momentum}")
        self.momentum, self.coupled_weight_decay = momentum, coupled_weight_decay
        self.multipliers = dict(multipliers or {})

    def build(self, variables: list[keras.Variable]) -> None:
        """Make a momentum buffer for each variable and look up its multiplier."""
        if self.built:
            return
        layers = [set(variable.path.split("/")[:-1]) for variable in variables]
        unknown = set(self.multipliers).difference(*layers)
        if unknown:
            names = ", ".join(sorted(unknown))
            raise ValueError(f"multipliers must name layers with trainable weights; got {names}")
        super().build(variables)
        # Keras 3.8 has no `add_optimizer_variables`.
        self._buffers = [self.add_variable_from_reference(variable, "momentum") for variable in variables]
        self._rates = [
            next((value for layer, value in self.multipliers.items() if layer in names), 1.0)
            for names in layers
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change one variable."""
        index = self._get_variable_index(variable)
        buffer, dtype = self._buffers[index], variable.dtype
        gradient, weight = keras.ops.cast(gradient, dtype), keras.ops.convert_to_tensor(variable)
        rate = keras.ops.cast(learning_rate, dtype) * self._rates[index]
        if self.coupled_weight_decay:
            gradient = gradient + self.coupled_weight_decay * weight
        step = self.momentum * keras.ops.convert_to_tensor(buffer) + rate * gradient
        self.assign(buffer, step)
        self.assign_sub(variable, step)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "coupled_weight_decay": self.coupled_weight_decay,
            "multipliers": self.multipliers,
        }


def step_schedule(
    learning_rate: float, every_steps: int, factor: float = 0.5
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Caffe's policy "step": step t, counted from 0, has rate learning_rate · factor^⌊t / every_steps⌋."""
    return keras.optimizers.schedules.ExponentialDecay(learning_rate, every_steps, factor, staircase=True)
