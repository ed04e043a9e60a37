"""What a recipe is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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

    def settings_for(self, catalogue: Catalogue, assignments: Sequence[str]) -> Settings:
        """The settings for these pictures, some replaced by the values of `--set`."""
        from rll_tf.training import Settings

        if self.choose is None:
            return Settings(**self.settings).override(assignments)
        given = Settings().override(assignments)
        names = {assignment.partition("=")[0] for assignment in assignments}
        chosen = self.choose(catalogue, {name: getattr(given, name, None) for name in names})
        return chosen.override(assignments)
