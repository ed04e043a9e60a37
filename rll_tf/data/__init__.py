"""What pictures are there, and what is in a batch?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from rll_tf.data import cars196, cub200, digits, folder, glyphs, inshop, sop, table, tfds
from rll_tf.data.cache import PictureCache
from rll_tf.data.catalogue import Catalogue, counted, printable
from rll_tf.data.image_header import header_pixels
from rll_tf.data.images import Augmentation, Preprocessing
from rll_tf.data.integrity import (
    CorruptPictureError,
    Skipped,
    duplicates,
    name_corrupt,
    report_duplicates,
    skip_corrupt,
)
from rll_tf.data.paths import dataset_path
from rll_tf.data.pipeline import (
    class_balanced_dataset,
    evaluation_batches,
    load_pictures,
    training_batches,
)
from rll_tf.data.sampler import ClassBalancedBatches, class_balanced_batches

__all__ = [
    "DATASETS",
    "Augmentation",
    "Catalogue",
    "ClassBalancedBatches",
    "CorruptPictureError",
    "PictureCache",
    "Preprocessing",
    "Skipped",
    "class_balanced_batches",
    "class_balanced_dataset",
    "counted",
    "dataset_path",
    "duplicates",
    "evaluation_batches",
    "header_pixels",
    "load_pictures",
    "name_corrupt",
    "open_dataset",
    "printable",
    "report_duplicates",
    "skip_corrupt",
    "training_batches",
]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set that a SPEC may name.

    Args:
        open: called with the SPEC's path where it has one.
        usage: how the SPEC is written; `[:PATH]` may be left out, and is `dataset_path(name)` then.
        what: one line on what it is.
        where: where it comes from, or for a benchmark the files that its folder must hold.
    """

    open: Callable[..., Catalogue]
    usage: str
    what: str
    where: str

    @property
    def has_path(self) -> bool:
        """Whether the SPEC has a path (or, for tfds, a builder's name)."""
        return ":" in self.usage

    @property
    def has_default_path(self) -> bool:
        """Whether the path may be left out."""
        return "[" in self.usage


_BIRDS = "images.txt, image_class_labels.txt, images/"
_CARS = "cars_annos.mat and car_ims/, or devkit/ and cars_*/"
_PRODUCTS = "Ebay_train.txt, Ebay_test.txt, bicycle_final/ …"
_GARMENTS = "Eval/list_eval_partition.txt, img/"
_BUILDERS = "pip install 'rll_tf[datasets]'"
DATASETS = {
    "glyphs": Dataset(
        glyphs.glyphs, "glyphs", "letters of many alphabets in sixteen fonts", "drawn when opened"
    ),
    "digits": Dataset(digits.digits, "digits", "scanned digits, 8×8 px: a smoke test", "inside scikit-learn"),
    "folder": Dataset(
        folder.folder, "folder:PATH", "your own pictures", "one directory per class, however deep"
    ),
    "csv": Dataset(
        table.table, "csv:FILE", "a table of your pictures", "columns path, label; optionally split"
    ),
    "cub200": Dataset(cub200.cub200, "cub200[:PATH]", "200 species of birds", _BIRDS),
    "cars196": Dataset(cars196.cars196, "cars196[:PATH]", "196 models of cars", _CARS),
    "sop": Dataset(sop.sop, "sop[:PATH]", "22,634 products", _PRODUCTS),
    "inshop": Dataset(inshop.inshop, "inshop[:PATH]", "7,982 garments", _GARMENTS),
    "tfds": Dataset(tfds.tfds, "tfds:NAME", "a builder of tensorflow-datasets", _BUILDERS),
}


def open_dataset(spec: str) -> Catalogue:
    """Open a data set by its SPEC, such as `"glyphs"`, `"folder:PATH"`, `"csv:FILE"` or `"cub200"`.

    A benchmark without a path is opened from `dataset_path(NAME)`.

    Returns:
        A `Catalogue`: paths or pixels, integer labels, class names, and splits that share no class (but
        In-shop's query and gallery).

    Raises:
        ValueError: the name is unknown, a path is missing or not allowed, or counts are not as published.
        FileNotFoundError: the path does not exist, or files are missing.
    """
    name, colon, path = spec.partition(":")
    if name not in DATASETS:
        known = ", ".join(entry.usage for entry in DATASETS.values())
        what = f"unknown data set {spec!r}" if spec else "a SPEC must name a data set; got none"
        meant = f"; did you mean folder:{spec}?" if spec and Path(spec).expanduser().is_dir() else ""
        raise ValueError(f"{what}; known are: {known}{meant}")
    dataset = DATASETS[name]
    if dataset.has_path:
        if not path and not dataset.has_default_path:
            raise ValueError(f"data set {name!r} needs a path, as in {dataset.usage}; got {spec!r}")
        if path:
            return dataset.open(path)
        return dataclasses.replace(dataset.open(dataset_path(name)), spec=name)
    if colon:
        raise ValueError(f"data set {name!r} takes no path; got {spec!r}")
    return dataset.open()
