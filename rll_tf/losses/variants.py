"""The three published forms of Ranked List Loss, and the numbers that define one."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

VARIANTS = ("paper", "release2019", "release2020")


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What `ranked_list_loss` is given besides a batch; its docstring explains each.

    Raises:
        ValueError: the loss is not defined for these values.
    """

    alpha: float = 1.2
    margin: float = 0.4
    temperature: float = 10.0
    variant: str = "paper"
    positive_temperature: float = 0.0
    balance: float = 0.5

    def __post_init__(self) -> None:
        for name in ("alpha", "margin", "temperature", "positive_temperature", "balance"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number: got {value!r}")
            if value < 0:
                raise ValueError(f"{name} must not be negative: got {value!r}")
            object.__setattr__(self, name, float(value))
        if self.balance > 1:
            raise ValueError(f"balance must be between 0 and 1: got {self.balance!r}")
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}: got {self.variant!r}")

    @property
    def positive_bound(self) -> float:
        """Positives farther than this are mined."""
        return 1 - self.margin / 2 if self.variant == "release2020" else self.alpha - self.margin

    @property
    def negative_bound(self) -> float:
        """Negatives nearer than this are mined."""
        return 1 + self.margin / 2 if self.variant == "release2020" else self.alpha

    @property
    def numbers(self) -> tuple[float, ...]:
        """What the loss computes with: two bounds, two temperatures, the balance."""
        return (
            self.positive_bound,
            self.negative_bound,
            self.positive_temperature,
            self.temperature,
            self.balance,
        )

    @property
    def squared(self) -> bool:
        """Whether a pair is judged by its squared distance, so that its gradient is f_i - f_j itself."""
        return self.variant == "release2019"

    @property
    def reweighted(self) -> bool:
        """Whether queries are weighted by how much they mine."""
        return self.variant != "paper"


def checked_block_size(block_size: Any) -> int | None:
    """`block_size` as an int that JSON takes, or None; ValueError unless it is positive or None."""
    if block_size is None:
        return None
    if isinstance(block_size, bool) or not isinstance(block_size, numbers.Integral) or block_size < 1:
        raise ValueError(f"block_size must be a positive integer or None: got {block_size!r}")
    return int(block_size)
