"""Recipes: one file each, named here.

A recipe is a module with `DATA`, the SPEC it trains on unless told otherwise (None where only the user can
tell), and `SETTINGS`, or instead of them a function `settings_for(catalogue, weights)` where they depend on
the pictures. Its docstring says where the numbers come from, and what was and was not measured with them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rll_tf.data import Catalogue
    from rll_tf.training import Settings

RECIPES = (
    "convnet",
    "glyphs",
    "folder",
    "inception_bn",
    "cub200",
    "cub200_2019",
    "cub200_2020",
    "cars196",
    "cars196_2019",
    "cars196_2020",
    "sop",
    "sop_2019",
    "sop_2020",
    "inshop",
    "inshop_2019",
    "inshop_2020",
)


def check_recipe(name: str) -> None:
    """Check a recipe's name before anything slow is loaded.

    Raises:
        ValueError: there is no such recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known are: {', '.join(RECIPES)}")


def open_recipe(name: str) -> ModuleType:
    """The module of a recipe.

    Raises:
        ValueError: there is no such recipe.
    """
    check_recipe(name)
    return importlib.import_module(f"{__name__}.{name}")


def recipe_spec(name: str, data: str | None) -> str:
    """The SPEC to train on: the user's, otherwise the recipe's.

    Raises:
        ValueError: there is neither.
    """
    spec = open_recipe(name).DATA if data is None else data
    if spec is None:
        raise ValueError(f"recipe {name} trains on your own pictures: give them with --data folder:PATH")
    return spec


def recipe_settings(name: str, catalogue: Catalogue, assignments: Iterable[str]) -> Settings:
    """A recipe's settings for these pictures, some replaced by the user's `key=value`.

    Raises:
        ValueError: an assignment is wrong.
    """
    from rll_tf.training import Settings

    module, assignments = open_recipe(name), tuple(assignments)
    if not hasattr(module, "settings_for"):
        return module.SETTINGS.override(assignments)
    asked = Settings().override(assignments)
    settings = module.settings_for(catalogue, asked.weights)
    print(
        f"chosen from {len(catalogue)} pictures of {catalogue.class_count} classes: {settings.backbone} at "
        f"{settings.input_px} px, {settings.steps} steps of {settings.classes_per_batch} × "
        f"{settings.images_per_class}, learning_rate {settings.learning_rate:g}, margin {settings.margin:g}, "
        f"embedding_dim {settings.embedding_dim}; --set replaces any of them"
    )
    return settings.override(assignments)
