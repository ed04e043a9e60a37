"""Recipes: one file each, named here.

A recipe is a module with `DATA`, the SPEC it trains on unless told otherwise, and `SETTINGS`. Its docstring
says where the numbers come from, and what was and was not measured with them.
"""

from __future__ import annotations

import importlib
from types import ModuleType

RECIPES = (
    "convnet",
    "glyphs",
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
