"""Reads the arrays of a `.npz` file, a zip archive of NumPy's `.npy` files."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """Read every array: its name -> its numbers. Pickled objects are refused.

    Raises:
        ValueError: the file is damaged, or holds anything but plain arrays of real numbers.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return {
                name.removesuffix(".npy"): _array(name, archive.read(name)) for name in archive.namelist()
            }
    # What a damaged archive ends in depends on where it is damaged.
    except Exception as error:
        raise ValueError(
            f"{file} must be a whole .npz file of plain arrays of real numbers: {error}"
        ) from error


def _array(name: str, content: bytes) -> np.ndarray:
    """The numbers of one `.npy` file, whose header is believed only as far as there are bytes."""
    stream = io.BytesIO(content)
    if not name.endswith(".npy"):
        raise ValueError(f"{name} is not a .npy file")
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"{name} has version {version} of the format")
    shape, by_columns, dtype = HEADERS[version](stream)
    if dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {dtype}")
    numbers = content[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(numbers):
        raise ValueError(f"{name} of shape {shape} and dtype {dtype} has {len(numbers)} bytes")
    return np.frombuffer(numbers, dtype).reshape(shape, order="F" if by_columns else "C")
