"""From settings to a compiled model."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import keras

from rll_tf.models import (
    embedding_model,
    find_backbone,
    freeze_batch_norm,
    imagenet_weights,
    load_pretrained,
    pretrained_origin,
    synchronise_batch_norm,
)
from rll_tf.models.proxies import similarity_of, without_proxies
from rll_tf.training.distribution import default_precision
from rll_tf.training.losses import PROXY_LOSSES, make_loss, make_metrics
from rll_tf.training.optimizers import CaffeSGD, step_schedule
from rll_tf.training.settings import PIXELS, Settings

IMAGENET = "imagenet"


def with_pixels(settings: Settings) -> Settings:
    """The settings with the preprocessing of their pretrained weights, where they leave it open."""
    has_layouts = bool(find_backbone(settings.backbone).layouts)  # and a preprocessing of each
    if settings.weights is None or settings.pixels is not None or not has_layouts:
        return settings
    origin = pretrained_origin(settings.weights)
    return dataclasses.replace(settings, pixels=origin if origin in PIXELS else None)


def build(settings: Settings, classes: int | None = None) -> keras.Model:
    """A compiled model, its weights drawn from the settings' seed or read from the settings' file.

    Args:
        settings: what to build.
        classes: how many classes it is trained on, each with a proxy where the loss has them.

    Raises:
        ValueError: the settings don't fit together, or the file doesn't fit the model.
        FileNotFoundError: there is no such file.
    """
    if settings.memory and settings.loss != "ranked_list":
        raise ValueError(f"memory is for loss=ranked_list; got loss={settings.loss}")
    keras.utils.set_random_seed(settings.seed)
    side, weights = settings.input_px, settings.weights
    # Keras builds its applications with these; whatever else is loaded afterwards.
    built_in = find_backbone(settings.backbone).loads_weights and (
        weights == IMAGENET or (weights is not None and weights.endswith(".h5"))
    )
    precision = settings.precision or default_precision()
    with _policy(precision):
        model = embedding_model(
            settings.backbone,
            settings.levels,
            settings.embedding_dim,
            layout=settings.layout,
            input_shape=(side, side, 3),
            weights=weights if built_in else None,
            proxies=classes if settings.loss in PROXY_LOSSES else None,
        )
    _check_batch(settings, model)
    new_layers = _new_layers(settings)
    if weights is not None and not built_in:
        file = imagenet_weights(settings.backbone) if weights == IMAGENET else weights
        lacking = _load_weights(without_proxies(model), settings, file)
        new_layers += [layer for layer in lacking if layer not in new_layers]
    freeze = settings.freeze_batch_norm
    if freeze if freeze is not None else weights is not None:
        freeze_batch_norm(model)
    if settings.sync_batch_norm:
        synchronise_batch_norm(model)
    rates = dict.fromkeys(new_layers, settings.new_layers_rate)
    outputs = _loss_outputs(settings)
    if settings.loss in PROXY_LOSSES:
        rates |= dict.fromkeys(outputs, settings.proxies_rate)
    parameters = settings.loss_parameters
    ranked_list = {**settings.ranked_list, "memory": settings.memory, "memory_start": settings.memory_start}
    model.compile(
        _optimizer(settings, {layer: rate for layer, rate in rates.items() if rate != 1}, precision),
        {output: make_loss(settings.loss, parameters, ranked_list) for output in outputs},
        metrics={output: make_metrics(settings.loss, settings.ranked_list) for output in outputs},
        jit_compile=settings.jit,  # XLA makes a step of these convolutions slower on a CPU
    )
    return model


def _loss_outputs(settings: Settings) -> tuple[str, ...]:
    """The names of the model's outputs that the loss takes."""
    if settings.loss in PROXY_LOSSES:
        return tuple(similarity_of(level) for level in settings.levels)
    return settings.levels


def _check_batch(settings: Settings, model: keras.Model) -> None:
    """Spectral Clust is 0 for every batch that is no larger than the embedding."""
    dim = int(model.output[settings.levels[0]].shape[-1])
    classes, images = settings.classes_per_batch, settings.images_per_class
    if settings.loss == "spectral_clust" and classes * images <= dim:
        raise ValueError(
            "spectral_clust trains nothing unless a batch holds more pictures than an embedding has "
            f"dimensions: classes_per_batch × images_per_class must exceed embedding_dim; "
            f"got {classes} × {images} and {dim}"
        )


def _load_weights(model: keras.Model, settings: Settings, file: str | Path) -> tuple[str, ...]:
    """Load a file of weights and return the names of the layers that it lacks."""
    loaded = load_pretrained(model, file)
    pixels = settings.preprocessing
    if loaded.mean is None and settings.pixels is None and find_backbone(settings.backbone).layouts:
        raise ValueError(
            f"{file} doesn't record which mean its network was trained with: "
            f"{settings.backbone} needs pixels=caffe or pixels=pytorch beside weights under Keras's names"
        )
    if loaded.mean is not None and (
        (loaded.mean, loaded.scale, loaded.bgr) != (pixels.mean, pixels.scale, pixels.bgr)
    ):
        raise ValueError(
            f"weights of {loaded.origin} origin need pixels={loaded.origin}; "
            f"got mean {pixels.mean}, scale {pixels.scale}, bgr {pixels.bgr}"
        )
    print(f"weights of {loaded.origin} origin; new layers: {', '.join(loaded.new_layers) or 'none'}")
    return loaded.new_layers


def _new_layers(settings: Settings) -> list[str]:
    """The layers that start anew in every fine-tuning: those whose outputs are the embeddings."""
    by_level = find_backbone(settings.backbone).new_layers
    return [layer for level in settings.levels for layer in by_level.get(level, ())]


def rate_schedule(settings: Settings) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of each step, counted from 0."""
    if settings.halve_every_steps is None:
        return keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.steps)
    return step_schedule(settings.learning_rate, settings.halve_every_steps, 0.5)


def _optimizer(
    settings: Settings, multipliers: dict[str, float], precision: str
) -> keras.optimizers.Optimizer:
    schedule = rate_schedule(settings)
    optimizer = CaffeSGD(schedule, settings.momentum, settings.weight_decay, multipliers)
    if precision != "mixed_float16":
        return optimizer
    # Left to itself, `compile` scales the loss too, but a checkpoint then names the inner optimizer alone:
    # what is loaded from it has forgotten momentum, step and scale.
    return keras.optimizers.LossScaleOptimizer(optimizer)


@contextlib.contextmanager
def _policy(name: str) -> Iterator[None]:
    """Layers made inside compute in this precision; they keep it in their configuration."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
