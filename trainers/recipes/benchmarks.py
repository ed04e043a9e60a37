"""The recipes for the paper's data sets: what they have in common, and one row each.

    rll train cub200            # looks in ~/.rll_tf/datasets/cub200 ($RLL_DATASETS/cub200)
    rll train cub200 --data cub200:PATH

Sections 3.4 and 4.1 of the paper: pictures are resized to 256×256, cropped to 227×227 and mirrored at random;
a batch has 60 classes of 3 pictures; each of three levels has its own loss, α = 1.2, m = 0.4, T = 10; SGD
with momentum 0.9 and weight decay 1e-5, ten times faster in the three new dense layers, from ImageNet's
weights; the rate and the number of steps by data set. Batch norm stays in training mode, as in the authors'
training; `--set freeze_batch_norm=true` freezes it, which is elsewhere the default for pretrained weights.
No classes are held out of the training classes: the last checkpoint counts. The paper gives no schedule: the
rate is halved as in the release. In-shop is not in the paper, only in a later release whose numbers aren't
known here: those of SOP.

NAME_2019 is the authors' release of that year: its loss, and for CUB its other numbers; those for SOP equal
the paper's, the others aren't known here. NAME_2020 has the loss of the 2020 release and its crops: half to
all of a picture's side, 3/4 to 4/3 as wide as high, resized to 227 px.

The weights are `weights/googlenet_bn.caffemodel`, or another file with `--set weights=FILE`: the PyTorch
port's, `bn_inception-52deb4733.pth`, with `--set layout=pytorch` too. They can't be downloaded from here.
`--set weights=none` trains from random weights, for which these numbers were not chosen. A GPU with 16 GB of
memory should hold a batch of 180 in float32, by the size of the activations.

Nothing was timed, and the paper's numbers have not been measured with these recipes here.
"""

from __future__ import annotations

from typing import Any

from trainers.recipes.recipe import Recipe

PAPER: dict[str, Any] = dict(
    backbone="inception_bn",
    weights="weights/googlenet_bn.caffemodel",
    input_px=227,
    resize_px=256,
    mirror=True,
    alpha=1.2,
    margin=0.4,
    temperature=10.0,
    classes_per_batch=60,
    images_per_class=3,
    momentum=0.9,
    weight_decay=1e-5,
    new_layers_rate=10.0,
    freeze_batch_norm=False,
    validate_every_steps=500,
    validation_share=0.0,
)
CUB = dict(learning_rate=1e-3, steps=10_000, halve_every_steps=2_000)
CARS = dict(learning_rate=1e-2, steps=10_000, halve_every_steps=2_000)
PRODUCTS = dict(learning_rate=1e-2, steps=16_000, halve_every_steps=5_000)
RELEASE_2019 = dict(variant="release2019")
CUB_2019 = RELEASE_2019 | dict(classes_per_batch=20, alpha=1.4, margin=0.2, weight_decay=2e-5)
RELEASE_2020 = dict(variant="release2020", scale_and_aspect=True)

RECIPES = {
    "cub200": Recipe("birds: the paper's run", "cub200", PAPER | CUB),
    "cub200_2019": Recipe("birds: all as of 2019", "cub200", PAPER | CUB | CUB_2019),
    "cub200_2020": Recipe("birds: loss and crops of 2020", "cub200", PAPER | CUB | RELEASE_2020),
    "cars196": Recipe("cars: the paper's run", "cars196", PAPER | CARS),
    "cars196_2019": Recipe("cars: the loss of 2019", "cars196", PAPER | CARS | RELEASE_2019),
    "cars196_2020": Recipe("cars: loss and crops of 2020", "cars196", PAPER | CARS | RELEASE_2020),
    "sop": Recipe("products: the paper's run", "sop", PAPER | PRODUCTS),
    "sop_2019": Recipe("products: all as of 2019", "sop", PAPER | PRODUCTS | RELEASE_2019),
    "sop_2020": Recipe("products: loss and crops of 2020", "sop", PAPER | PRODUCTS | RELEASE_2020),
    "inshop": Recipe("garments: the paper's loss, SOP's numbers", "inshop", PAPER | PRODUCTS),
    "inshop_2019": Recipe("garments: the loss of 2019", "inshop", PAPER | PRODUCTS | RELEASE_2019),
    "inshop_2020": Recipe("garments: loss and crops of 2020", "inshop", PAPER | PRODUCTS | RELEASE_2020),
}
