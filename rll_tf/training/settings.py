"""Everything a training run depends on, besides its pictures."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterable
from typing import Any

from rll_tf.data import Augmentation, Catalogue, Preprocessing

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
# What networks take: pixels of 0 to 255 less a mean, divided by a scale.
PIXELS: dict[str, dict[str, Any]] = {
    "unit": {"mean": (127.5, 127.5, 127.5), "scale": 127.5, "bgr": False},
    "caffe": {"mean": (104.0, 117.0, 123.0), "scale": 1.0, "bgr": True},
    "pytorch": {"mean": (104.0, 117.0, 128.0), "scale": 1.0, "bgr": True},
    "byte": {"mean": (0.0, 0.0, 0.0), "scale": 1.0, "bgr": False},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A recipe's numbers; every one can be replaced on the command line with `--set key=value`.

    Args:
        backbone: the network, a name in `rll_tf.models.BACKBONES`: convnet, inception_bn, …
        layout: which of the backbone's variants, where it has several; None is its first.
        weights: a file for `rll_tf.models.load_pretrained`; None draws them from the seed.
        pixels: what the network takes, see `PIXELS`; None is what belongs to the weights' file, otherwise to
            the backbone. Inception-BN's weights under Keras's names don't tell, and need it.
        precision: float32, mixed_float16 or mixed_bfloat16; embeddings and loss are float32 in each.
        jit: whether to compile steps with XLA.
        levels: the embeddings to train, each with a `RankedListLoss` of its own, weight 1 each.
        embedding_dim: numbers in each level's embedding; None is the backbone's default.
        input_px: side of the square that the network sees.
        resize_px: side to which pictures are resized before cropping; None is `input_px`, no crop.
        alpha: of the loss: negatives are pushed beyond this distance (α in the paper).
        margin: of the loss: positives are pulled within alpha - margin (m in the paper).
        temperature: of the loss: how much more near negatives weigh (T in the paper).
        variant: of the loss: paper, release2019 or release2020.
        classes_per_batch: C of a batch.
        images_per_class: K of a batch.
        steps: how many batches to train on.
        learning_rate: at the start; it falls to zero along half a cosine over `steps`, unless halved.
        halve_every_steps: halve the rate after each so many steps, instead of the cosine.
        momentum, weight_decay: of SGD as in Caffe.
        new_layers_rate: how many times faster the new layers learn, whose outputs are the embeddings.
        freeze_batch_norm: keep the statistics, scales and offsets of batch norm as they are.
        validate_every_steps: how often to validate and to save a checkpoint.
        validation_share: share of the training classes held out for validation, where the data set has no
            validation split of its own.
        validation_folds: cross-validation instead: parts of the training classes; 0 for none.
        validation_fold: which of these parts is held out, from 1.
        mirror, rotate_degrees, zoom, stretch, shear, shift, scale_and_aspect: see
            `rll_tf.data.Augmentation`.
        seed: of the weights, the batches, the augmentation and the held-out classes.
    """

    backbone: str = "convnet"
    levels: tuple[str, ...] = ("low", "mid", "high")
    layout: str | None = None
    weights: str | None = None
    pixels: str | None = None
    precision: str = "float32"
    jit: bool = False
    embedding_dim: int | None = None
    input_px: int = 48
    resize_px: int | None = None
    alpha: float = 1.2
    margin: float = 0.4
    temperature: float = 10.0
    variant: str = "paper"
    classes_per_batch: int = 60
    images_per_class: int = 3
    steps: int = 600
    learning_rate: float = 0.01
    halve_every_steps: int | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    new_layers_rate: float = 1.0
    freeze_batch_norm: bool = False
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
        # One class alone has nothing to push, one picture of a class nothing to pull.
        least = {"steps": 1, "validate_every_steps": 1, "classes_per_batch": 2, "images_per_class": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}; got {getattr(self, name)}")
        if self.halve_every_steps is not None and self.halve_every_steps < 1:
            raise ValueError(f"halve_every_steps must be at least 1; got {self.halve_every_steps}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}")
        if self.pixels is not None and self.pixels not in PIXELS:
            raise ValueError(f"pixels must be one of {', '.join(PIXELS)}; got {self.pixels!r}")
        not_negative = (
            "weight_decay",
            "new_layers_rate",
            "rotate_degrees",
            "zoom",
            "stretch",
            "shear",
            "shift",
        )
        for name in (*not_negative, "seed"):
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
        pixels = self.pixels
        if pixels is None:
            backbone = self.backbone.partition(":")[0]
            # KerasCV's backbones bring their own scaling.
            pixels = {"inception_bn": "caffe", "keras_cv": "byte"}.get(backbone, "unit")
        return Preprocessing(self.input_px, resize_px, **PIXELS[pixels])

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
