"""Reads a Keras model's variables by their paths (`inception_3a_1x1/kernel`) from Keras's own files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np

# Where a `.keras` archive holds the variables; the architecture beside it may name any code, and isn't read.
WEIGHTS = "model.weights.h5"
# A layer's variables, numbered.
VARIABLES = "vars"
# What a checkpoint holds besides layers.
OTHERS = {"optimizer", "metrics", "seed_generator"}


def read_keras(file: Path, model: keras.Model) -> dict[str, np.ndarray]:
    """Read a `.keras` or `.weights.h5` file for a model: `{the variable's path: its numbers}`.

    Such files number a layer's variables. Those of layers that the model has get the paths of its own, the
    others are `layer/number`. Nothing but numbers is read: the file's architecture is left alone.

    Raises:
        ValueError: the file is damaged or no such file.
    """
    paths = _paths(model)
    content = file.read_bytes()
    try:
        if file.suffix == ".keras":
            content = zipfile.ZipFile(io.BytesIO(content)).read(WEIGHTS)
        with h5py.File(io.BytesIO(content)) as groups:
            return {
                paths.get(name, name): _numbers(name, dataset)
                for key in groups.keys() - OTHERS
                for name, dataset in _datasets(groups[key])
            }
    # What a damaged file ends in depends on where it is damaged.
    except Exception as error:
        raise ValueError(f"{file} is not a whole file of Keras's weights: {error}") from error


def _paths(model: keras.Model) -> dict[str, str]:
    """`layer/number` or `outermost layer/layer/number`, as in the file -> the variable's path."""
    paths: dict[str, str] = {}
    for outer in model.layers:
        for layer in outer._flatten_layers():
            name = outer.name if layer is outer else f"{outer.name}/{layer.name}"
            # The order in which Keras saves them; freezing doesn't change it.
            variables = layer._trainable_variables + layer._non_trainable_variables
            paths |= {f"{name}/{number}": variable.path for number, variable in enumerate(variables)}
    return paths


def _datasets(group: h5py.Group, outer: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    """The variables in a group, named as in `_paths`; groups are named after kinds (`conv2d_7`)."""
    if VARIABLES in group:
        layer = str(group[VARIABLES].attrs["name"])
        name = f"{outer}/{layer}" if outer else layer
        yield from ((f"{name}/{number}", dataset) for number, dataset in group[VARIABLES].items())
        outer = outer or layer
    for key, inner in group.items():
        if key != VARIABLES and isinstance(inner, h5py.Group):
            yield from _datasets(inner, outer)


def _numbers(name: str, dataset: h5py.Dataset) -> np.ndarray:
    # Keras stores numbers plainly. Other ways may state more than the file holds, or refer to other files.
    if dataset.external or dataset.is_virtual or dataset.nbytes > dataset.id.get_storage_size():
        raise ValueError(f"{name} must lie in the file as a whole array")
    return dataset[()]
