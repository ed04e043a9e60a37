"""The paper's network from random weights, on a user's own pictures, small enough for a CPU.

rll train inception_bn --data folder:PATH --set mirror=true

Where ImageNet's weights are at hand: `--set weights=FILE --set learning_rate=0.01 --set new_layers_rate=10`,
not measured here. The numbers below were chosen after the small network's, not by search.

What it gave on grocery photographs is in docs/measured.md.
"""

from __future__ import annotations

from typing import Any

from trainers.recipes.recipe import Recipe

SETTINGS: dict[str, Any] = dict(
    backbone="inception_bn",
    embedding_dim=128,
    input_px=112,
    resize_px=128,
    margin=0.8,
    classes_per_batch=16,
    images_per_class=4,
    steps=300,
    learning_rate=0.1,
    weight_decay=1e-5,
    validate_every_steps=100,
)

RECIPE = Recipe("the paper's network, small enough for a CPU", "glyphs", SETTINGS)
