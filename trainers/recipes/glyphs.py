"""The `convnet` recipe at the glyphs' own 32 px: what `make demo` trains.

    rll train glyphs

About a minute and a half on two CPU cores. Only the number of steps and C were tuned on glyphs, on its 21
validation classes: Recall@1 of the concatenation was 0.988 after 300 steps of 60 × 3 and 0.979 after 300 of
40 × 3. What 400 steps give is in the README's table.
"""

from trainers.recipes import convnet
from trainers.recipes.recipe import Recipe

RECIPE = Recipe(
    "the small network on letters of 32 px: what rll demo trains",
    "glyphs",
    convnet.SETTINGS | dict(input_px=32, steps=400),
)
