"""The `convnet` recipe at the glyphs' own 32 px: what `make demo` trains.

    rll train glyphs

A minute or two on two CPU cores. Only the number of steps and C were tuned on glyphs, on its validation
classes. What it gives is in the README's table.
"""

from trainers.recipes import convnet
from trainers.recipes.recipe import Recipe

RECIPE = Recipe(
    "the small network on letters of 32 px: what rll demo trains",
    "glyphs",
    convnet.SETTINGS | dict(input_px=32, steps=400),
)
