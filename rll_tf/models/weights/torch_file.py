"""Reads the tensors of a PyTorch file without PyTorch, and without running what its pickle names.

A pickle is a program: it may name any function of any module and have it called. This reader knows the few
names that a state dict needs and refuses every other. Two formats are read: the zip archive of PyTorch 1.6
and later, and the sequence of pickles before it.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import tensorflow as tf

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(tf.bfloat16.as_numpy_dtype),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
    "BoolStorage": np.dtype("?"),
}


class _Tensor(NamedTuple):
    """A view of a storage, a run of numbers; offset and strides count numbers."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Builds containers, numbers and strings, and a `_Tensor` for each tensor; nothing else.

    What stands for PyTorch's names is a string or a method: neither can be changed by a pickle.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self.storages: dict[str, tuple[np.dtype, int]] = {}  # key -> dtype and count

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the pickle."""
        if module == "torch" and name in DTYPES:
            return name
        known = {
            "collections.OrderedDict": collections.OrderedDict,
            "torch._utils._rebuild_tensor": self._rebuild_tensor,
            "torch._utils._rebuild_tensor_v2": self._rebuild_tensor,
            "torch._utils._rebuild_parameter": self._rebuild_parameter,
        }
        if f"{module}.{name}" not in known:
            raise ValueError(
                f"it names {module}.{name}, which no file of plain tensors needs; nothing of it was run"
            )
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> str:
        """The key of the storage that a tensor refers to."""
        _, kind, key, _, count, *_ = pid
        self.storages[key] = DTYPES[kind], count
        return key

    def _rebuild_tensor(self, storage: str, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
        return _Tensor(storage, offset, shape, strides)

    def _rebuild_parameter(self, data: _Tensor, *_: Any) -> _Tensor:
        return data


def read_torch(file: Path) -> dict[str, np.ndarray]:
    """Read a state dict: the tensor's name -> its numbers, those of bfloat16 as float32.

    A checkpoint that holds a state dict beside the epoch, the optimizer and so on is read too.

    Raises:
        ValueError: the file is damaged, holds no state dict or several, or its pickle names anything that
            tensors don't need.
    """
    try:
        with file.open("rb") as stream:
            is_zip = stream.read(4) == b"PK\x03\x04"
            stream.seek(0)
            content, storages = _read_zip(stream) if is_zip else _read_legacy(stream)
        return {name: _view(name, tensor, storages) for name, tensor in _state_dict(content).items()}
    # A damaged pickle can end in almost any exception.
    except Exception as error:
        raise ValueError(f"{file} is not a PyTorch file of tensors: {error}") from error


def _read_zip(stream: IO[bytes]) -> tuple[Any, dict[str, np.ndarray]]:
    """What was saved, and the numbers of each storage."""
    with zipfile.ZipFile(stream) as archive:
        folder = archive.namelist()[0].partition("/")[0]
        unpickler = _Unpickler(io.BytesIO(archive.read(f"{folder}/data.pkl")))
        content = unpickler.load()
        return content, {
            key: _numbers(archive.read(f"{folder}/data/{key}"), dtype, count)
            for key, (dtype, count) in unpickler.storages.items()
        }


def _read_legacy(stream: IO[bytes]) -> tuple[Any, dict[str, np.ndarray]]:
    """As `_read_zip`, from five pickles: a magic number, the protocol, the system, what was saved, and keys.

    Then come, for each key of a storage, the count of its numbers in 8 bytes and the numbers.
    """
    if _Unpickler(stream).load() != LEGACY_MAGIC:
        raise ValueError("it does not begin as PyTorch's files do")
    for _ in ("protocol", "system"):
        _Unpickler(stream).load()
    unpickler = _Unpickler(stream)
    content = unpickler.load()
    storages = {}
    for key in _Unpickler(stream).load():
        dtype, count = unpickler.storages[key]
        stream.read(8)
        storages[key] = _numbers(stream.read(count * dtype.itemsize), dtype, count)
    return content, storages


def _numbers(data: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"a storage of {count} numbers has {len(data)} bytes; the file is cut short")
    numbers = np.frombuffer(data, dtype)
    return numbers.astype(np.float32) if dtype == DTYPES["BFloat16Storage"] else numbers


def _state_dict(content: Any) -> Mapping[Any, Any]:
    """The state dict, taken out of a checkpoint if it lies in one."""
    if not isinstance(content, dict) or not content:
        raise ValueError("it holds no state dict")
    if any(isinstance(value, _Tensor) for value in content.values()):
        return content
    parts = {
        name: part
        for name, part in content.items()
        if isinstance(part, dict) and part and all(isinstance(value, _Tensor) for value in part.values())
    }
    if len(parts) > 1:
        raise ValueError(f"it holds more than one state dict: {', '.join(map(str, parts))}; save one alone")
    return next(iter(parts.values()), content)


def _view(name: Any, tensor: Any, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    """A tensor's numbers, not copied; NumPy refuses what reaches beyond the storage."""
    if not isinstance(name, str) or not isinstance(tensor, _Tensor):
        raise ValueError(f"the entry {name!r} is not a tensor")
    numbers = storages[tensor.storage]
    offset_bytes = tensor.offset * numbers.itemsize
    strides_bytes = [stride * numbers.itemsize for stride in tensor.strides]
    try:
        return np.ndarray(tensor.shape, numbers.dtype, numbers.data, offset_bytes, strides_bytes)
    except ValueError as error:
        raise ValueError(f"{name} of shape {tensor.shape}: {error}") from error
