"""CARS196: photographs of 196 models of cars."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rll_tf.data.catalogue import Catalogue
from rll_tf.data.layout import Counts, check, doubled, find_tree, missing

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

    Args:
        path: where the tree lies.
        expected: the counts to assert.

    Returns:
        The pictures in the annotations' order; label 0 is class id 1. "train" holds the classes 1 to 98,
        "test" 99 to 196.

    Raises:
        FileNotFoundError: an annotation file or a picture is missing.
        ValueError: annotations are broken, or counts differ from `expected`.

    Source: Krause et al., "3D Object Representations for Fine-Grained Categorization" (2013); the paper,
    section 4.1.
    """
    root, pairs, names = _annotated(Path(path).expanduser())
    labels = np.array([label for _, label in pairs], np.int64) - 1
    count = sum(counts.classes for counts in expected.values())
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= count:
        raise ValueError(
            f"cars196: expected class ids from 1 to {count}; found {labels.min() + 1} to {labels.max() + 1}"
        )
    train = labels < expected["train"].classes
    catalogue = Catalogue(
        spec=f"cars196:{path}",
        paths=tuple(str(root / file) for file, _ in pairs),
        labels=labels,
        class_names=tuple(names[i] if i < len(names) else str(i + 1) for i in range(count)),
        splits={"train": np.flatnonzero(train), "test": np.flatnonzero(~train)},
    )
    return check("cars196", catalogue, expected, root)


def _annotated(path: Path) -> tuple[Path, list[tuple[str, int]], list[str]]:
    """The tree, each picture's path below it and class id, and the classes' names."""
    for root in (path, path / "cars196", path / "stanford_cars"):
        devkit = next((root / place for place in _DEVKITS if (root / place / _TRAIN).is_file()), None)
        if (root / _ALL).is_file() and (devkit is None or (root / "car_ims").is_dir()):
            mat = _load(root / _ALL)
            return root, _pairs(root / _ALL, mat, "relative_im_path", doubled(root, "car_ims")), _names(mat)
        if devkit is not None:
            test = find_tree("cars196", root, _DEVKITS, _TEST) / _TEST
            train, meta = devkit / _TRAIN, devkit / "cars_meta.mat"
            pairs = _pairs(train, _load(train), "fname", doubled(root, "cars_train") + "cars_train/")
            pairs += _pairs(test, _load(test), "fname", doubled(root, "cars_test") + "cars_test/")
            return root, pairs, _names(_load(meta)) if meta.is_file() else []
    raise missing("cars196", f"{_ALL} or devkit/{_TRAIN}", [path, path / "cars196", path / "stanford_cars"])


def _load(file: Path) -> dict[str, Any]:
    from scipy.io import loadmat  # only who opens CARS196 waits for it

    with _naming(file):
        return loadmat(file, squeeze_me=True)


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Whatever goes wrong in here, and SciPy fails on damaged files in many ways, is told of this file."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(
            f"{file} is not a whole MATLAB annotation file ({type(error).__name__}: {error})"
        ) from error


def _pairs(file: Path, mat: dict[str, Any], field: str, prefix: str) -> list[tuple[str, int]]:
    with _naming(file):
        annotations = np.atleast_1d(mat.get("annotations", np.empty(0)))
        fields = annotations.dtype.names or ()
    if field not in fields or "class" not in fields:
        raise ValueError(f"{file} must hold annotations with the fields {field} and class; it has {fields}")
    with _naming(file):
        return [
            (prefix + str(name), int(label))
            for name, label in zip(annotations[field], annotations["class"], strict=True)
        ]


def _names(mat: dict[str, Any]) -> list[str]:
    return [str(name) for name in np.atleast_1d(mat.get("class_names", np.empty(0)))]
