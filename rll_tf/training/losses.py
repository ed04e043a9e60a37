"""The loss that a run's settings name."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from rll_tf.losses import LOSSES, NegativeShare, PositiveShare
from rll_tf.losses.keras_loss import BatchLoss
from rll_tf.losses.memory import CrossBatchMemory

# Where a recipe's defaults, for embeddings of unit norm, are not those of the loss's class.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "triplet_semihard": {"margin": 0.2, "distance_metric": "squared-L2"},  # FaceNet's
    "triplet_hard": {"soft": True},  # no margin to choose
    "proxy_nca": {"scale": 9.0},  # norms of 3 of embeddings and proxies
}
# Recipes give Ranked List Loss's learning rate; these learn at this share of it: a sum over the batch, and
# losses with proxies (glyphs, docs/losses.md).
RATE_SHARES = {"struct_clust": 0.01, "proxy_nca": 0.125, "proxy_anchor": 0.05}
# Losses of the cosines to trainable proxies instead of the embeddings.
PROXY_LOSSES = ("proxy_nca", "proxy_anchor")
# Ranked List Loss's parameters that are settings themselves.
_SETTINGS = ("alpha", "margin", "temperature", "variant")


def loss_parameters(name: str) -> dict[str, Any]:
    """What `loss.KEY` can set for the loss of that name: KEY -> its default in a recipe."""
    kind = LOSSES[name]
    taken = _SETTINGS if name == "ranked_list" else ()
    defaults = {**kind().arguments(), **_DEFAULTS.get(name, {})}
    return {key: value for key, value in defaults.items() if key not in taken}


def parameter_kinds(name: str) -> dict[str, Any]:
    """KEY -> its type, for each of `loss_parameters`."""
    kinds = typing.get_type_hints(LOSSES[name].__init__)
    return {key: kinds[key] for key in loss_parameters(name)}


def make_loss(name: str, parameters: Mapping[str, Any], ranked_list: Mapping[str, Any]) -> BatchLoss:
    """The loss of that name, with `parameters` instead of its defaults in a recipe.

    `ranked_list` are Ranked List Loss's parameters among the settings.

    Raises:
        ValueError: the loss is not defined for these parameters.
    """
    given = ranked_list if name == "ranked_list" else {}
    return LOSSES[name](**{**loss_parameters(name), **given, **parameters})


def memory_state(model: keras.Model) -> dict[str, np.ndarray]:
    """What the memories of a compiled model's losses hold, by output and name."""
    return {
        f"{output}/{name}": array
        for output, memory in _memories(model)
        for name, array in memory.state().items()
    }


def restore_memory(model: keras.Model, state: Mapping[str, np.ndarray]) -> None:
    """Take up what `memory_state` returned."""
    for output, memory in _memories(model):
        start = f"{output}/"
        memory.restore({name[len(start) :]: state[name] for name in state if name.startswith(start)})


def _memories(model: keras.Model) -> Iterator[tuple[str, CrossBatchMemory]]:
    for output, loss in model.loss.items():
        if (memory := getattr(loss, "cross_batch_memory", None)) is not None:
            yield output, memory


def make_metrics(name: str, ranked_list: Mapping[str, Any]) -> list[keras.metrics.Metric]:
    """The shares of mined queries, where the loss is Ranked List Loss."""
    if name != "ranked_list":
        return []
    watched = {key: value for key, value in ranked_list.items() if key != "temperature"}
    return [kind(**watched) for kind in (PositiveShare, NegativeShare)]
