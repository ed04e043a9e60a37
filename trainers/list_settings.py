"""`rll settings`: what `rll train --set` can change."""

from __future__ import annotations

import dataclasses

from trainers.console import print_table
from trainers.recipes import find_recipe


def list_settings(recipe_name: str | None) -> None:
    """Print every setting with its default, or with a recipe's value, and a line of explanation.

    Raises:
        ValueError: there is no such recipe.
    """
    recipe = None if recipe_name is None else find_recipe(recipe_name)
    from rll_tf.losses import LOSSES
    from rll_tf.training import Settings
    from rll_tf.training.losses import loss_parameters
    from rll_tf.training.settings import as_text, describe_settings

    settings = Settings() if recipe is None else Settings(**recipe.settings)
    explanations = describe_settings()
    rows = [("SETTING", recipe_name or "default", "what")]
    for name, value in dataclasses.asdict(settings).items():
        rows.append((name, as_text(value), explanations[name].replace("`", "")))
    for name in LOSSES:
        parameters = [f"loss.{key}={as_text(value)}" for key, value in loss_parameters(name).items()]
        rows.append((f"loss={name}", "", " ".join(parameters)))
    if recipe is not None and recipe.choose is not None:
        print(f"{recipe_name} chooses from the pictures, and rll train prints what; the defaults:")
    print_table(rows)
    print("rll train RECIPE --set SETTING=VALUE replaces any")
