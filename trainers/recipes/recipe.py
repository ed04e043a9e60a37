"""What a recipe is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rll_tf.data import Catalogue
    from rll_tf.training import Settings


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What `rll train NAME` trains on and how; plain data, which needs no TensorFlow.

    Args:
        about: one line.
        data: the SPEC to train on unless another is given; None where the user must give one.
        settings: where they differ from the defaults of `rll_tf.training.Settings`.
        choose: computes all settings from the pictures instead; it also takes the settings that the user
            gave, by name.
    """

    about: str
    data: str | None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    choose: Callable[[Catalogue, Mapping[str, Any]], Settings] | None = None
