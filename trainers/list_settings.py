"""`rll settings`: what `rll train --set` can change."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from typing import Any

from trainers.recipes import find_recipe
from trainers.table import print_table

LINE_CHARACTERS = 130


def list_settings(recipe_name: str | None) -> None:
    """Print every setting with its default, or with a recipe's value, and a line of explanation.

    Raises:
        ValueError: there is no such recipe.
    """
    recipe = None if recipe_name is None else find_recipe(recipe_name)
    from rll_tf.data import Augmentation
    from rll_tf.training import Settings

    settings = Settings() if recipe is None else Settings(**recipe.settings)
    explanations = explained(Settings) | explained(Augmentation)
    rows = [("SETTING", recipe_name or "default", "what")]
    for name, value in dataclasses.asdict(settings).items():
        rows.append((name, as_text(value), explanations[name]))
    print_table(rows)
    if recipe is not None and recipe.choose is not None:
        print(f"these are defaults: {recipe_name} chooses from the pictures, and rll train prints what")
    print("rll train RECIPE --set SETTING=VALUE replaces any")


def explained(kind: type) -> dict[str, str]:
    """Argument -> the first sentence on it in the section `Args` of a class's docstring."""
    section = (inspect.getdoc(kind) or "").partition("Args:\n")[2].partition("\n\n")[0]
    explanations: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(section)):
        names, _, text = entry.partition(": ")
        sentence = " ".join(text.replace("`", "").split()).partition(". ")[0].rstrip(".")
        line = textwrap.shorten(sentence, LINE_CHARACTERS, placeholder=" …")
        explanations |= dict.fromkeys(names.split(", "), line)
    return explanations


def as_text(value: Any) -> str:
    """A setting's value as `--set` takes it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)
