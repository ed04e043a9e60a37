"""From settings to a compiled model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from rll_tf.losses import NegativeShare, PositiveShare, RankedListLoss
from rll_tf.models import embedding_model, find_backbone, freeze_batch_norm, load_pretrained
from rll_tf.training.optimizers import CaffeSGD, step_schedule
from rll_tf.training.settings import Settings


def build(settings: Settings) -> keras.Model:
    """A compiled model, its weights drawn from the settings' seed or read from the settings' file.

    Raises:
        ValueError: the settings don't fit together, or the file doesn't fit the model.
        FileNotFoundError: there is no such file.
    """
    keras.utils.set_random_seed(settings.seed)
    side = settings.input_px
    with _policy(settings.precision):
        model = embedding_model(
            settings.backbone,
            settings.levels,
            settings.embedding_dim,
            layout=settings.layout,
            input_shape=(side, side, 3),
        )
    new_layers = _new_layers(settings)
    if settings.weights is not None:
        loaded = load_pretrained(model, settings.weights)
        pixels = settings.preprocessing
        if loaded.mean is None and settings.pixels is None and find_backbone(settings.backbone).layouts:
            raise ValueError(
                f"{settings.weights} doesn't tell which mean its network was trained with: "
                f"{settings.backbone} needs pixels=caffe or pixels=pytorch beside weights under Keras's names"
            )
        if loaded.mean is not None and (loaded.mean, loaded.bgr) != (pixels.mean, pixels.bgr):
            raise ValueError(
                f"weights of {loaded.origin} origin need pixels={loaded.origin}; "
                f"got mean {pixels.mean}, bgr {pixels.bgr}"
            )
        new_layers += [layer for layer in loaded.new_layers if layer not in new_layers]
        print(f"weights of {loaded.origin} origin; new layers: {', '.join(loaded.new_layers) or 'none'}")
    if settings.freeze_batch_norm:
        freeze_batch_norm(model)
    # XLA makes a step of these convolutions slower on a CPU.
    model.compile(
        _optimizer(settings, new_layers),
        _losses(settings),
        metrics=_mined(settings),
        jit_compile=settings.jit,
    )
    return model


def _new_layers(settings: Settings) -> list[str]:
    """The layers that start anew in every fine-tuning: those whose outputs are the embeddings."""
    by_level = find_backbone(settings.backbone).new_layers
    return [layer for level in settings.levels for layer in by_level.get(level, ())]


def _optimizer(settings: Settings, new_layers: list[str]) -> keras.optimizers.Optimizer:
    rate = settings.learning_rate
    if settings.halve_every_steps is None:
        schedule = keras.optimizers.schedules.CosineDecay(rate, settings.steps)
    else:
        schedule = step_schedule(rate, settings.halve_every_steps, 0.5)
    faster = settings.new_layers_rate
    multipliers = {} if faster == 1 else dict.fromkeys(new_layers, faster)
    optimizer = CaffeSGD(schedule, settings.momentum, settings.weight_decay, multipliers)
    if settings.precision != "mixed_float16":
        return optimizer
    # Left to itself, `compile` scales the loss too, but a checkpoint then names the inner optimizer alone:
    # what is loaded from it has forgotten momentum, step and scale.
    return keras.optimizers.LossScaleOptimizer(optimizer)


def _losses(settings: Settings) -> dict[str, RankedListLoss]:
    numbers = (settings.alpha, settings.margin, settings.temperature)
    return {level: RankedListLoss(*numbers, variant=settings.variant) for level in settings.levels}


def _mined(settings: Settings) -> dict[str, list[keras.metrics.Metric]]:
    """Which share of the queries still has something to learn from."""
    numbers = (settings.alpha, settings.margin)
    return {
        level: [each(*numbers, variant=settings.variant) for each in (PositiveShare, NegativeShare)]
        for level in settings.levels
    }


@contextlib.contextmanager
def _policy(name: str) -> Iterator[None]:
    """Layers made inside compute in this precision; they keep it in their configuration."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
