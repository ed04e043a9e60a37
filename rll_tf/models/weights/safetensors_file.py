"""Reads a `.safetensors` file: eight bytes of header length, a JSON header, then the numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from rll_tf.models.weights import bfloat16

BFLOAT16 = "BF16"
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    BFLOAT16: "<f4",  # once widened
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
    "BOOL": "?",
}


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Read every tensor: its name -> its numbers.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    content = file.read_bytes()
    try:
        length = int.from_bytes(content[:8], "little")
        if len(content) < 8 or length > len(content) - 8:
            raise ValueError("the file is cut short")
        header = json.loads(content[8 : 8 + length])
        if not isinstance(header, dict):
            raise ValueError("its header is not a JSON object")
        header.pop("__metadata__", None)
        numbers = memoryview(content)[8 + length :]
        return {name: _tensor(name, entry, numbers) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is not a whole .safetensors file: {error}") from error


def _tensor(name: str, entry: dict[str, Any], numbers: memoryview) -> np.ndarray:
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{name} has dtype {entry['dtype']}; known are {', '.join(DTYPES)}")
    dtype, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
    itemsize = bfloat16.BYTES if dtype == BFLOAT16 else np.dtype(DTYPES[dtype]).itemsize
    if not 0 <= first <= last <= len(numbers) or math.prod(shape) * itemsize != last - first:
        raise ValueError(f"{name} of shape {shape} has no such bytes: {first} to {last} of {len(numbers)}")
    data = numbers[first:last]
    array = bfloat16.widen(data) if dtype == BFLOAT16 else np.frombuffer(data, DTYPES[dtype])
    return array.reshape(shape)
