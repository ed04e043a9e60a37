"""Reads variables by their paths (`inception_3a_1x1/kernel`) from Keras's own models and from `.npz`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np


def read_keras(file: Path) -> dict[str, np.ndarray]:
    """Read the variables of a model in a `.keras` file; code in it is refused.

    Raises:
        ValueError: the file is damaged or no such model.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is not a whole .keras file")
    try:
        model = keras.models.load_model(file, compile=False, safe_mode=True)
    # What a damaged archive ends in depends on where it is damaged.
    except Exception as error:
        raise ValueError(f"{file} can't be loaded as a Keras model: {error}") from error
    return {variable.path: variable.numpy() for variable in model.weights}


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a `.npz` file; pickled objects in it are refused.

    Raises:
        ValueError: the file is damaged or holds no plain arrays.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is not a whole .npz file of plain arrays: {error}") from error


def count_keras_weights(file: Path) -> int:
    """How many variables of layers a `.weights.h5` file holds."""
    others = {"optimizer", "metrics", "seed_generator"}
    count = 0

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        nonlocal count
        count += isinstance(item, h5py.Dataset) and not others & set(name.split("/"))

    with h5py.File(file) as content:
        content.visititems(visit)
    return count
