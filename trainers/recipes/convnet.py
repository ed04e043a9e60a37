"""A small convolutional network from random weights, for letters and other small pictures.

    rll train convnet --data folder:PATH --out RUN

Two CPU cores and a few minutes; no weights to download. Letters are not mirrored; for pictures of things add
`--set mirror=true`. The loss is the paper's, with its alpha and T but m = 0.8 and a step of 0.4: from random
weights these two matter most, and the paper's m = 0.4 and 0.01 are for a network that knows ImageNet.

The settings were chosen by validation classes alone, on Omniglot's small-set alphabets, with a prototype of
this network: other margins, rates, sizes, batches and deeper heads gave no more than 0.01 of Recall@1.
"""

from __future__ import annotations

from typing import Any

from trainers.recipes.recipe import Recipe

SETTINGS: dict[str, Any] = dict(
    backbone="convnet",
    input_px=48,
    margin=0.8,
    steps=600,
    validation_share=0.1,
    learning_rate=0.4,
    rotate_degrees=15,
    zoom=0.2,
    stretch=0.2,
    shear=0.2,
    shift=0.08,
)

RECIPE = Recipe("a small network, on a CPU in minutes", "glyphs", SETTINGS)
