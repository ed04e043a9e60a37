"""CARS196: photographs of 196 models of cars."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rll_tf.data.catalogue import Catalogue
from rll_tf.data.layout import Counts, check, doubled, find_tree, missing, split_by_class_id

COUNTS = {"train": Counts(98, 8_054), "test": Counts(98, 8_131)}

_ALL = "cars_annos.mat"
_TRAIN = "cars_train_annos.mat"
_TEST = "cars_test_annos_withlabels.mat"
_DEVKITS = ("devkit", "car_devkit/devkit")


def cars196(path: str | os.PathLike[str], expected: Mapping[str, Counts] = COUNTS) -> Catalogue:
    """Catalogue CARS196 from MATLAB annotations, in either of its official layouts.

        cars_annos.mat, car_ims/000001.jpg …                                    (one archive)
        devkit/cars_train_annos.mat, devkit/cars_test_annos_withlabels.mat
        (or beside devkit/), cars_train/00001.jpg …, cars_test/00001.jpg …      (the devkit)

    `path` is the directory that holds these, or one above it named `cars196` or `stanford_cars`. A folder of
    pictures may lie in another of its name, as in copies on Kaggle, and the devkit in `car_devkit/`. Where
    both layouts' annotations are there, car_ims/ decides between them. Which half of the pictures the
    annotations call test is for classification and not used.

    Returns:
        The pictures in the annotations' order; label 0 is class id 1. "train" holds the classes 1 to 98,
        "test" 99 to 196.

    Source: Krause et al., "3D Object Representations for Fine-Grained Categorization" (2013); the paper,
    section 4.1.
    """
    root, pairs, names = _annotated(Path(path).expanduser())
    labels = np.array([label for _, label in pairs], np.int64) - 1
    splits = split_by_class_id("cars196", labels, expected)
    catalogue = Catalogue(
        spec=f"cars196:{path}",
        paths=tuple(str(root / file) for file, _ in pairs),
        labels=labels,
        class_names=tuple(
            names[i] if i < len(names) else str(i + 1) for i in range(labels.max(initial=-1) + 1)
        ),
        splits=splits,
    )
    return check("cars196", catalogue, expected, root)


def _annotated(path: Path) -> tuple[Path, list[tuple[str, int]], list[str]]:
    """The tree, each picture's path below it and class id, and the classes' names."""
    roots = [path, path / "cars196", path / "stanford_cars"]
    for root in roots:
        devkit = next((root / top for top in _DEVKITS if (root / top / _TRAIN).is_file()), None)
        if (root / _ALL).is_file() and (devkit is None or (root / "car_ims").is_dir()):
            names, pairs = _read(root / _ALL, "relative_im_path", doubled(root, "car_ims"))
            return root, pairs, names
        if devkit is not None:
            test = find_tree("cars196", root, _DEVKITS, _TEST) / _TEST
            _, pairs = _read(devkit / _TRAIN, "fname", doubled(root, "cars_train") + "cars_train/")
            pairs += _read(test, "fname", doubled(root, "cars_test") + "cars_test/")[1]
            meta = devkit / "cars_meta.mat"
            return root, pairs, _read(meta)[0] if meta.is_file() else []
    raise missing("cars196", f"{_ALL} or devkit/{_TRAIN}", roots)


def _read(file: Path, field: str | None = None, prefix: str = "") -> tuple[list[str], list[tuple[str, int]]]:
    """The classes' names that a file has, and with `field` its pictures, each as its path and class id."""
    from scipy.io import loadmat  # takes long, and only CARS196 needs it

    try:
        mat = loadmat(file, squeeze_me=True)
        names = [str(name) for name in np.atleast_1d(mat.get("class_names", np.empty(0)))]
        annotations = np.atleast_1d(mat.get("annotations", np.empty(0)))
        fields = annotations.dtype.names or ()
        if field is None:
            return names, []
        if field in fields and "class" in fields:
            pairs = zip(annotations[field], annotations["class"], strict=True)
            return names, [(prefix + str(name), int(label)) for name, label in pairs]
    except Exception as error:  # SciPy fails on damaged files in many ways, none of which names the file
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(
            f"{file} is not a whole MATLAB annotation file ({type(error).__name__}: {error})"
        ) from error
    raise ValueError(f"{file} must hold annotations with the fields {field} and class; it has {fields}")
