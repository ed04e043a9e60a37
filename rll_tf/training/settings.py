"""Everything a training run depends on, besides its pictures."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import re
import types
import typing
from collections.abc import Iterable
from typing import Any

from rll_tf.data import Augmentation, Catalogue, Preprocessing
from rll_tf.losses import LOSSES
from rll_tf.training.losses import RATE_SHARES, loss_parameters, parameter_kinds

PRECISIONS = ("float32", "float64", "mixed_float16", "mixed_bfloat16")
STRATEGIES = ("none", "mirrored", "multi_worker")
# What networks take: pixels of 0 to 255 less a mean, divided by a scale.
PIXELS: dict[str, dict[str, Any]] = {
    "unit": {"mean": (127.5, 127.5, 127.5), "scale": 127.5, "bgr": False},
    "caffe": {"mean": (104.0, 117.0, 123.0), "scale": 1.0, "bgr": True},
    "pytorch": {"mean": (104.0, 117.0, 128.0), "scale": 1.0, "bgr": True},
    "efficientnet_lite": {"mean": (127.0, 127.0, 127.0), "scale": 128.0, "bgr": False},
    "byte": {"mean": (0.0, 0.0, 0.0), "scale": 1.0, "bgr": False},
}
# Backbones of other packages bring their own scaling.
_PIXELS_OF = {
    "inception_bn": "caffe",
    "efficientnet_lite": "efficientnet_lite",
    **dict.fromkeys(("keras", "keras_hub", "keras_cv"), "byte"),
}

_AT_LEAST = {
    "steps": 1,
    "validate_every_steps": 1,
    "patience": 1,
    "replicas": 1,
    "halve_every_steps": 1,
    "classes_per_batch": 2,  # one class alone has no negatives
    "images_per_class": 2,  # one picture of a class has no positive
}
_NOT_NEGATIVE = (
    "weight_decay", "new_layers_rate", "proxies_rate", "rotate_degrees", "zoom", "stretch", "shear", "shift",
    "checkpoint_minutes", "seed", "memory", "memory_start",
)  # fmt: skip
_AT_LEAST_0_BELOW_1 = ("momentum", "test_share", "validation_share")
_ONE_OF = {"precision": PRECISIONS, "strategy": STRATEGIES, "pixels": tuple(PIXELS)}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A recipe's numbers; every one can be replaced on the command line with `--set key=value`.

    Args:
        backbone: the network, a name in `rll_tf.models.BACKBONES`
        levels: the embeddings to train, separated by commas, each with a loss of its own
        layout: which of the backbone's variants, where it has several; none: its first
        weights: a file of pretrained weights, or imagenet; none: weights are drawn from the seed
        pixels: unit, caffe, pytorch, efficientnet_lite or byte; none: what weights or backbone need
        strategy: on which devices: none (one), mirrored (several) or multi_worker (those of TF_CONFIG)
        replicas: how many devices mirrored takes, parts of the CPU where there is no GPU; none: every GPU
        sync_batch_norm: batch norm of the whole batch, not of each replica's share
        deterministic: the same numbers in every run; none: where there is no GPU, as it makes GPUs slower
        precision: float32, float64, mixed_float16 or mixed_bfloat16; none: what the device computes fast in
        jit: compile training steps with XLA
        embedding_dim: dimensions of each level's embedding; none: the backbone's default
        input_px: side of the square that the network sees, in pixels
        resize_px: side to which pictures are resized before the crop to input_px; none: no crop
        loss: the loss of each level, a name in `rll_tf.losses.LOSSES`
        loss_parameters: loss.KEY=VALUE sets the loss's parameter KEY
        alpha: ranked_list's α; negatives are pushed to this distance or farther
        margin: ranked_list's m; positives are pulled to alpha - margin or nearer
        temperature: ranked_list's T, how much more the hardest negatives count
        variant: of ranked_list: paper, release2019 or release2020
        memory: ranked_list's, how many embeddings of earlier steps it compares with besides, by level
        memory_start: the first step that uses them
        classes_per_batch: C, classes in a batch
        images_per_class: K, pictures of each class in a batch
        steps: batches to train on
        learning_rate: at the start; falls to zero along half a cosine, unless halve_every_steps is set
        halve_every_steps: halve the learning rate after each so many steps; none: the cosine
        momentum: of SGD as in Caffe
        weight_decay: of SGD as in Caffe, part of the gradient
        new_layers_rate: how many times faster the new layers learn, whose outputs are the embeddings
        proxies_rate: how many times faster the proxies of proxy_nca and proxy_anchor learn
        freeze_batch_norm: keep batch norm as it is, statistics too; none: where weights are pretrained
        validate_every_steps: validate and save a checkpoint after each so many steps
        checkpoint_minutes: save a checkpoint after each so many minutes too
        patience: end training after so many validations without a better one; none: after all steps
        test_share: share of all classes never used, left to `rll evaluate`, where the data set has no splits
        validation_share: share of the training classes held out, where the data set has no validation split
        validation_folds: cross-validation on so many parts of the training classes; 0: none
        validation_fold: which of these parts is held out, from 1
        mirror: flip half of the training pictures left to right
        rotate_degrees: rotate training pictures by up to so many degrees either way
        zoom: enlarge or shrink training pictures by a factor of up to 1 + zoom
        stretch: change the aspect ratio of training pictures by a factor of up to 1 + stretch
        shear: slant training pictures by up to this ratio either way
        shift: move training pictures by up to this share of their side either way
        scale_and_aspect: crop windows of random size and aspect ratio, as the authors' 2020 release does
        seed: of the weights, the batches, the augmentation and the held-out classes
    """

    backbone: str = "convnet"
    levels: tuple[str, ...] = ("low", "mid", "high")
    layout: str | None = None
    weights: str | None = None
    pixels: str | None = None
    strategy: str = "none"
    replicas: int | None = None
    sync_batch_norm: bool = False
    deterministic: bool | None = None
    precision: str | None = None
    jit: bool = False
    embedding_dim: int | None = None
    input_px: int = 48
    resize_px: int | None = None
    loss: str = "ranked_list"
    loss_parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    alpha: float = 1.2
    margin: float = 0.4
    temperature: float = 10.0
    variant: str = "paper"
    memory: int = 0
    memory_start: int = 0
    classes_per_batch: int = 60
    images_per_class: int = 3
    steps: int = 600
    learning_rate: float = 0.01
    halve_every_steps: int | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    new_layers_rate: float = 1.0
    proxies_rate: float = 10.0
    freeze_batch_norm: bool | None = None
    validate_every_steps: int = 100
    checkpoint_minutes: float = 10.0
    patience: int | None = None
    test_share: float = 0.0
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
        for name, bound in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name} must be at least {bound}; got {value}")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")
        for name in _AT_LEAST_0_BELOW_1:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1; got {getattr(self, name)}")
        for name, known in _ONE_OF.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
        if self.loss not in LOSSES:
            hint = _suggestion(self.loss, LOSSES, f"known are: {', '.join(LOSSES)}")
            raise ValueError(f"unknown loss {self.loss!r}; {hint}")
        for name in self.loss_parameters:
            self._check_parameter(name)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0; got {self.learning_rate}")
        if self.validation_folds and not (
            self.validation_folds >= 2 and 1 <= self.validation_fold <= self.validation_folds
        ):
            raise ValueError(
                "validation_fold must be from 1 to validation_folds, which is 0 or at least 2; "
                f"got fold {self.validation_fold} of {self.validation_folds}"
            )

    def _check_parameter(self, name: str) -> None:
        known = loss_parameters(self.loss)
        if name not in known:
            if self.loss == "ranked_list" and name in self.ranked_list:
                raise ValueError(f"ranked_list's {name} is a setting itself: {name}=VALUE, not loss.{name}")
            has = f"it has: {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{self.loss} has no parameter {name!r}; {_suggestion(name, known, has)}")

    @property
    def ranked_list(self) -> dict[str, Any]:
        """The parameters of Ranked List Loss among the settings."""
        return {name: getattr(self, name) for name in ("alpha", "margin", "temperature", "variant")}

    def split(self, catalogue: Catalogue) -> Catalogue:
        """The catalogue with the splits `train` and, where classes are held out, `validation`.

        A data set's own validation split stands, unless cross-validation is set. Where test classes are set
        apart, there is a split `test` too.
        """
        catalogue = catalogue.set_apart(self.test_share)
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
            kind = self.backbone.partition(":")[0].rstrip("01234")
            pixels = _PIXELS_OF.get(kind, "unit")
        return Preprocessing(self.input_px, resize_px, **PIXELS[pixels])

    @property
    def augmentation(self) -> Augmentation:
        """The random changes to training pictures."""
        names = [field.name for field in dataclasses.fields(Augmentation)]
        return Augmentation(**{name: getattr(self, name) for name in names})

    def override(self, assignments: Iterable[str]) -> Settings:
        """Replace some settings, each given as `key=value`; lists are separated by commas.

        With another loss comes its own share of the learning rate, unless that is given too.

        Raises:
            ValueError: an unknown key, a value of the wrong kind, or one that is out of bounds.
        """
        kinds = typing.get_type_hints(type(self))
        del kinds["loss_parameters"]  # set one by one
        changes, parameters = {}, {}
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise ValueError(f"a setting must have the form key=value; got {assignment!r}")
            if key.startswith("loss."):
                parameters[key.removeprefix("loss.")] = text
            elif key not in kinds:
                raise ValueError(
                    f"unknown setting {key!r}; {_suggestion(key, kinds, 'rll settings lists all')}"
                )
            else:
                changes[key] = _parse(key, text, kinds[key])
        loss = changes.get("loss", self.loss)
        if loss != self.loss:
            changes["loss_parameters"] = {}  # those of another loss
            share = RATE_SHARES.get(loss, 1) / RATE_SHARES.get(self.loss, 1)
            changes.setdefault("learning_rate", self.learning_rate * share)
        return dataclasses.replace(self, **changes)._override_loss(parameters)

    def _override_loss(self, parameters: dict[str, str]) -> Settings:
        """Replace some of the loss's parameters, given as text."""
        for name in parameters:
            self._check_parameter(name)
        kinds = parameter_kinds(self.loss)
        parsed = {name: _parse(f"loss.{name}", text, kinds[name]) for name, text in parameters.items()}
        return dataclasses.replace(self, loss_parameters={**self.loss_parameters, **parsed})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """The inverse of `dataclasses.asdict`, also after a trip through JSON."""
        return cls(**{**values, "levels": tuple(values["levels"])})


def describe_settings() -> dict[str, str]:
    """Every setting's name -> one line that says what it is, from the docstring of `Settings`."""
    return dict(re.findall(r"^ {4}(\w+): (.+)$", inspect.cleandoc(Settings.__doc__ or ""), re.MULTILINE))


def _suggestion(name: str, known: Iterable[str], otherwise: str) -> str:
    nearest = difflib.get_close_matches(name, known)
    return f"did you mean {' or '.join(nearest)}?" if nearest else otherwise


def as_text(value: Any) -> str:
    """A setting's value as `--set` takes it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, dict):
        return ",".join(f"{key}={as_text(each)}" for key, each in value.items()) or "none"
    return str(value)


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
