"""Reads files of named arrays: NumPy's `.npz` and `.safetensors`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow  # noqa: F401 (it makes NumPy know bfloat16)
from safetensors import SafetensorError
from safetensors.numpy import load_file


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """Read every array: its name -> its numbers. Pickled objects are refused.

    Raises:
        ValueError: the file is damaged, or an entry is not a plain array.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: np.asarray(array) for name, array in arrays.items()}
    # What a damaged archive ends in depends on where it is damaged.
    except Exception as error:
        raise ValueError(f"{file} must be a whole .npz file of plain arrays: {error}") from error


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Read every tensor: its name -> its numbers, those of bfloat16 as float32.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        arrays = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is not a whole .safetensors file: {error}") from error
    return {
        name: array.astype(np.float32) if array.dtype.name == "bfloat16" else array
        for name, array in arrays.items()
    }
