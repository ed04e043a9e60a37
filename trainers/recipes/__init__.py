"""Recipes by name; to add one, write a file like `convnet.py`, or a row in `benchmarks.py`, and name it here.

A file's docstring says where the numbers come from, and what was and was not measured with them.
"""

from __future__ import annotations

from trainers.recipes import benchmarks, convnet, folder, glyphs, inception_bn
from trainers.recipes.recipe import Recipe
from trainers.suggestions import suggesting

__all__ = ["RECIPES", "Recipe", "find_recipe"]

RECIPES = {
    "convnet": convnet.RECIPE,
    "glyphs": glyphs.RECIPE,
    "folder": folder.RECIPE,
    "inception_bn": inception_bn.RECIPE,
    **benchmarks.RECIPES,
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: there is none.
    """
    with suggesting(RECIPES, name):
        if name not in RECIPES:
            raise ValueError(f"unknown recipe {name!r}; known are: {', '.join(RECIPES)}")
    return RECIPES[name]
