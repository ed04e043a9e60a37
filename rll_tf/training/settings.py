"""Everything a training run depends on, besides its pictures."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterable
from typing import Any

from rll_tf.data import Augmentation, Catalogue, Preprocessing


@dataclasses.dataclass(frozen=True)
class Settings:
    """A recipe's numbers; every one can be replaced on the command line with `--set key=value`.

    Args:
        backbone: a name in `rll_tf.models.BACKBONES`.
        levels: the embeddings to train, each with a `RankedListLoss` of its own, weight 1 each.
        embedding_dim: numbers in each level's embedding; None is the backbone's default.
        input_px: side of the square that the network sees.
        resize_px: side to which pictures are resized before cropping; None is `input_px`, no crop.
        alpha, margin, temperature: of the loss (α, m and T in the paper).
        classes_per_batch, images_per_class: C and K of a batch.
        steps: how many batches to train on.
        learning_rate: at the start; it falls to zero along half a cosine over `steps`.
        momentum: of SGD.
        validate_every_steps: how often to validate and to save a checkpoint.
        validation_share: share of the training classes held out for validation, where the data set has no
            validation split of its own.
        validation_folds, validation_fold: where folds is not 0, cross-validation instead: which of how many
            parts of the training classes is held out, from 1.
        mirror, rotate_degrees, zoom, stretch, shear, shift, scale_and_aspect: see
            `rll_tf.data.Augmentation`.
        seed: of the weights, the batches, the augmentation and the held-out classes.
    """

    backbone: str = "convnet"
    levels: tuple[str, ...] = ("low", "mid", "high")
    embedding_dim: int | None = None
    input_px: int = 48
    resize_px: int | None = None
    alpha: float = 1.2
    margin: float = 0.4
    temperature: float = 10.0
    classes_per_batch: int = 60
    images_per_class: int = 3
    steps: int = 600
    learning_rate: float = 0.01
    momentum: float = 0.9
    validate_every_steps: int = 100
    validation_share: float = 0.15
    validation_folds: int = 0
    validation_fold: int = 1
    mirror: bool = False
    rotate_degrees: float = 0.0
    zoom: float = 0.0
    stretch: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    scale_and_aspect: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "validate_every_steps", "classes_per_batch", "images_per_class"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("rotate_degrees", "zoom", "stretch", "shear", "shift", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0; got {self.learning_rate}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1; got {self.momentum}")
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"validation_share must be at least 0 and below 1; got {self.validation_share}")

        if self.validation_folds and not (
            self.validation_folds >= 2 and 1 <= self.validation_fold <= self.validation_folds
        ):
            raise ValueError(
                "validation_fold must be from 1 to validation_folds, which is 0 or at least 2; "
                f"got fold {self.validation_fold} of {self.validation_folds}"
            )

    def split(self, catalogue: Catalogue) -> Catalogue:
        """The catalogue with the splits `train` and, where classes are held out, `validation`.

        A data set's own validation split stands, unless cross-validation is asked for.
        """
        if self.validation_folds:
            return catalogue.fold(self.validation_fold, self.validation_folds, self.seed)
        if "validation" in catalogue.splits:
            return catalogue
        return catalogue.hold_out(self.validation_share, self.seed)

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures become the network's input."""
        resize_px = self.input_px if self.resize_px is None else self.resize_px
        return Preprocessing(self.input_px, resize_px)

    @property
    def augmentation(self) -> Augmentation:
        """The random changes to training pictures."""
        names = [field.name for field in dataclasses.fields(Augmentation)]
        return Augmentation(**{name: getattr(self, name) for name in names})

    def override(self, assignments: Iterable[str]) -> Settings:
        """Replace some settings, each given as `key=value`; lists are separated by commas.

        Raises:
            ValueError: an unknown key, a value of the wrong kind, or one that is out of bounds.
        """
        kinds = typing.get_type_hints(type(self))
        changes = {}
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise ValueError(f"a setting must have the form key=value; got {assignment!r}")
            if key not in kinds:
                raise ValueError(f"unknown setting {key!r}; known are: {', '.join(kinds)}")
            changes[key] = _parse(key, text, kinds[key])
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """The inverse of `dataclasses.asdict`, also after a trip through JSON."""
        return cls(**{**values, "levels": tuple(values["levels"])})


def _parse(key: str, text: str, kind: Any) -> Any:
    """Turn a command line's `text` into a value of type `kind`."""
    if isinstance(kind, types.UnionType):
        if text.lower() == "none":
            return None
        kind = typing.get_args(kind)[0]
    if kind is str:
        return text
    if typing.get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(","))
    try:
        value = json.loads(text.lower())
    except ValueError:
        value = None
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"setting {key} must be {wanted}; got {text!r}")
    return value
