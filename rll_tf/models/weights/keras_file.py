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
# What a training checkpoint holds besides layers.
OTHERS = {"optimizer", "metrics", "seed_generator"}


def read_keras(file: Path, model: keras.Model) -> dict[str, np.ndarray]:
    """Read a `.keras` or `.weights.h5` file for a model: `{the variable's path: its numbers}`.

    Such files number a layer's variables. Those of layers that the model has get the paths of its own, the
    others are `layer/number`. Nothing but numbers is read: the file's architecture is left alone.

    Raises:
        ValueError: the file is damaged or no such file.
    """
    paths = _paths(model)
    try:
        if file.suffix == ".keras":
            with zipfile.ZipFile(file) as archive:
                stream = io.BytesIO(archive.read(WEIGHTS))
        else:
            stream = io.BytesIO(file.read_bytes())
        tensors: dict[str, np.ndarray] = {}
        with h5py.File(stream) as content:
            for name, dataset in _datasets(content):
                path = paths.get(name, name)
                if path in tensors:
                    raise ValueError(f"it has two variables {path}")
                tensors[path] = _numbers(path, dataset)
    # What a damaged file ends in depends on where it is damaged.
    except Exception as error:
        raise ValueError(f"{file} is not a whole file of Keras's weights: {error}") from error
    return tensors


def _paths(model: keras.Model) -> dict[str, str]:
    """`layer/number`, as in the file, with the layer around it if there is one -> the variable's path."""
    paths: dict[str, str] = {}
    for outer in model.layers:
        for layer in outer._flatten_layers():
            name = outer.name if layer is outer else f"{outer.name}/{layer.name}"
            # The order in which Keras saves them; freezing doesn't change it.
            variables = layer._trainable_variables + layer._non_trainable_variables
            paths |= {f"{name}/{number}": variable.path for number, variable in enumerate(variables)}
    return paths


def _datasets(content: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Each variable of a layer, under its layers' names; groups are named after kinds (`conv2d_7`)."""
    names: dict[str, str] = {}
    groups: list[tuple[str, h5py.Group]] = []

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        owner, _, last = path.rpartition("/")
        if last == "vars" and isinstance(item, h5py.Group) and not OTHERS & set(path.split("/")):
            names[owner] = str(item.attrs.get("name", owner))
            groups.append((owner, item))

    content.visititems(visit)
    for owner, group in groups:
        outer = next((names[path] for path in _outwards(owner) if path in names), "")
        name = names[owner] if outer in ("", names[owner]) else f"{outer}/{names[owner]}"
        for number in group:
            yield f"{name}/{number}", group[number]


def _outwards(owner: str) -> list[str]:
    """The groups that a layer's group lies in, the outermost first, itself last."""
    parts = owner.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _numbers(path: str, dataset: h5py.Dataset) -> np.ndarray:
    # Keras stores numbers plainly. Other ways could claim more than the file holds, or name other files.
    if dataset.external or dataset.is_virtual or dataset.nbytes > dataset.id.get_storage_size():
        raise ValueError(f"{path} must lie in the file as a whole array")
    return dataset[()]
