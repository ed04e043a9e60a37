"""What is searched for each loss: the one table of ranges, and the batch that a loss's nature needs.

Every loss has the same number of trials, its learning rate among what they search. The first trial is the
loss's default, with its own share of the recipe's learning rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rll_tf.models import find_backbone
from rll_tf.training.losses import RATE_SHARES, loss_parameters
from rll_tf.training.settings import Settings, as_text


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that one setting may take.

    Args:
        key: a setting, or `loss.KEY`.
        low: the lowest value.
        high: the highest.
        scale: `"log"` or `"linear"`; `"factor"`: log, and all values are factors of the recipe's own.
        first: the first trial's value.
        choices: all values, where they are not numbers.
    """

    key: str
    low: float = 0.0
    high: float = 1.0
    scale: str = "linear"
    first: Any = None
    choices: tuple[Any, ...] = ()


RATE = Range("learning_rate", 1 / 300, 10, "factor")
PROXIES_RATE = Range("proxies_rate", 1, 300, "log")
RANGES: dict[str, tuple[Range, ...]] = {
    "ranked_list": (
        RATE,
        Range("alpha", 1.0, 1.6),
        Range("margin", 0.2, 1.0),
        Range("temperature", 0, 20),
    ),
    "triplet_semihard": (RATE, Range("loss.margin", 0.05, 1.0, "log")),  # of squared distances
    "triplet_hard": (
        RATE,
        Range("loss.soft", choices=(True, False)),
        Range("loss.margin", 0.05, 1.0, "log"),  # used where soft is false
    ),
    "lifted_struct": (RATE, Range("loss.margin", 0.3, 2.0)),
    "n_pair": (RATE,),  # its l2 changes nothing where embeddings have unit norm
    "struct_clust": (RATE, Range("loss.gamma", 0.1, 10, "log")),
    "spectral_clust": (RATE,),  # it has no parameter
    "proxy_nca": (RATE, PROXIES_RATE, Range("loss.scale", 1, 32, "log")),
    "proxy_anchor": (
        RATE,
        PROXIES_RATE,
        Range("loss.alpha", 8, 64, "log"),
        Range("loss.delta", 0.0, 0.4),
    ),
    "multi_similarity": (
        RATE,
        Range("loss.alpha", 0.5, 10, "log"),
        Range("loss.beta", 10, 100, "log"),
        Range("loss.threshold", 0.1, 1.0),
    ),
}
# Spectral Clust is 0 unless a batch has more pictures than an embedding has dimensions: it gets twice as
# many, in at most four times the others' batch, to bound memory; where that is too few, a smaller embedding.
SPECTRAL_PICTURES, SPECTRAL_BATCHES = 2, 4


def ranges_of(loss: str, settings: Settings) -> tuple[Range, ...]:
    """The ranges of this loss, in the settings' own units, every number of three digits."""
    defaults = {f"loss.{key}": value for key, value in loss_parameters(loss).items()}
    ranges = []
    for each in RANGES[loss]:
        first = defaults[each.key] if each.key in defaults else getattr(settings, each.key)
        if each.choices:
            ranges.append(dataclasses.replace(each, first=first))
            continue
        unit = first if each.scale == "factor" else 1.0
        low, high = three_digits(each.low * unit), three_digits(each.high * unit)
        if each.key == "learning_rate":
            first *= RATE_SHARES.get(loss, 1)
        scale = "linear" if each.scale == "linear" else "log"
        ranges.append(Range(each.key, low, high, scale, min(max(three_digits(first), low), high)))
    return tuple(ranges)


def three_digits(value: float) -> float:
    """What a reader can copy."""
    return float(f"{value:.3g}")


def settings_of(
    loss: str, levels: tuple[str, ...], base: Settings, classes: int, values: Mapping[str, Any]
) -> Settings:
    """The settings of a run: the base, the batch that the loss needs, and the values of a trial.

    A loss that needs another batch sees as many pictures in all: it has more or fewer steps.

    Args:
        loss: a name in `LOSSES`.
        levels: which embeddings are trained.
        base: the settings of all losses.
        classes: how many there are to train on; a batch holds no more.
        values: of a trial, by the `key` of their ranges.
    """
    settings = dataclasses.replace(base, levels=levels).override([f"loss={loss}"])
    settings = dataclasses.replace(settings, **_batch(loss, base, classes))
    return settings.override(f"{key}={as_text(value)}" for key, value in values.items())


def _batch(loss: str, base: Settings, classes: int) -> dict[str, Any]:
    """The settings that a loss's own batch changes."""
    of_batch, of_class = base.classes_per_batch, base.images_per_class
    pictures = of_batch * of_class
    changes: dict[str, Any] = {}
    if loss == "n_pair":  # it takes the first two pictures of a class
        of_batch, of_class = min(classes, pictures // 2), 2
    elif loss == "spectral_clust":
        dim = base.embedding_dim or find_backbone(base.backbone).embedding_dim
        wanted = min(SPECTRAL_PICTURES * dim, SPECTRAL_BATCHES * pictures)
        if wanted > pictures:
            of_batch = min(classes, wanted // of_class)
            of_class = -(-wanted // of_batch)
        changes["embedding_dim"] = min(dim, of_batch * of_class // SPECTRAL_PICTURES)
    if of_batch * of_class != pictures or of_class != base.images_per_class:
        changes |= {"classes_per_batch": of_batch, "images_per_class": of_class}
        for name in ("steps", "validate_every_steps", "halve_every_steps"):
            if (value := getattr(base, name)) is not None:
                changes[name] = max(1, round(value * pictures / (of_batch * of_class)))
    return changes
