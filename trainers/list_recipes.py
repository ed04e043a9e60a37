"""`rll recipes`: what can be trained by name."""

from __future__ import annotations

from trainers.console import print_table
from trainers.recipes import RECIPES


def list_recipes() -> None:
    """Print a table of the recipes."""
    rows = [("RECIPE", "data", "backbone", "from weights", "what")]
    for name, recipe in RECIPES.items():
        backbone, weights = "by the pictures", "random"
        if recipe.choose is None:
            backbone, weights = recipe.settings["backbone"], recipe.settings.get("weights", "random")
        rows.append((name, recipe.data or "folder:PATH", backbone, weights, recipe.about))
    print_table(rows)
    print("rll settings RECIPE lists a recipe's settings; rll train RECIPE --data SPEC takes other pictures")
