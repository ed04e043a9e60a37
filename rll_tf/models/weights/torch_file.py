"""Reads the tensors of a PyTorch `.pth` file without PyTorch, and without running what its pickle asks for.

A pickle is a program: it may name any function of any module and have it called. This reader knows the few
names that a state dict needs, answers them with its own stand-ins, and refuses every other. Both formats are
read: the zip archive of PyTorch 1.6 and later, and the sequence of pickles before it.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import pickle
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from rll_tf.models.weights import bfloat16

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
BFLOAT16 = "BFloat16Storage"
STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    BFLOAT16: "<f4",  # once widened
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


class _Sealed:
    """Stands in for something of PyTorch's. A pickle may fill in what it has built, but not one of these."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it changes an object of PyTorch's, which no file of plain tensors does")


@dataclasses.dataclass(frozen=True)
class _StorageType(_Sealed):
    """Stands in for `torch.FloatStorage` and its like."""

    name: str


@dataclasses.dataclass
class _Storage(_Sealed):
    """A run of numbers that tensors are views of; the older format delivers them after the tensors."""

    kind: str
    count: int
    values: np.ndarray | None = None

    @property
    def size_bytes(self) -> int:
        """What it takes in the file."""
        itemsize = bfloat16.BYTES if self.kind == BFLOAT16 else np.dtype(STORAGE_DTYPES[self.kind]).itemsize
        return self.count * itemsize


@dataclasses.dataclass(frozen=True)
class _Tensor(_Sealed):
    """A view of a storage, checked when it is resolved."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def resolve(self) -> np.ndarray:
        """The numbers, as a view: one that repeats them may be of any size."""
        values = self.storage.values
        if values is None:
            raise ValueError("the numbers of a tensor are missing")
        if len(self.shape) != len(self.strides) or min((0, self.offset, *self.shape, *self.strides)) < 0:
            raise ValueError(f"a tensor has shape {self.shape} and strides {self.strides}")
        size = math.prod(self.shape)
        if size == 0:
            return np.zeros(self.shape, values.dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if last >= len(values):
            raise ValueError(f"a tensor of shape {self.shape} reaches beyond its {len(values)} numbers")
        strides = [step * values.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides, writeable=False)


class _RebuildTensor(_Sealed):
    """Stands in for PyTorch's functions of that name; what follows the strides concerns training."""

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or any(type(number) is not int for number in numbers):
            raise ValueError("a tensor is not described as PyTorch does")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _RebuildParameter(_Sealed):
    """Stands in for PyTorch's function of that name."""

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


def _stand_ins() -> dict[tuple[str, str], Any]:
    """What a pickle may name; made anew for each file, so that none can leave a mark on the next."""
    return {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
        ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
        ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
        **{("torch", name): _StorageType(name) for name in STORAGE_DTYPES},
    }


class _Unpickler(pickle.Unpickler):
    """Knows how to rebuild tensors, and nothing else."""

    def __init__(self, stream: IO[bytes], storages: dict[str, _Storage]) -> None:
        super().__init__(stream)
        self.storages, self.known = storages, _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the pickle."""
        try:
            return self.known[module, name]
        except KeyError:
            raise ValueError(
                f"it asks for {module}.{name}, which no file of plain tensors needs; nothing of it was run"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage that a tensor refers to."""
        kind, storage_type, key, _, count, *view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(view):
            raise ValueError("a storage is not described as PyTorch does")
        return self.storages.setdefault(str(key), _Storage(storage_type.name, count))


def read_torch(file: Path) -> dict[str, np.ndarray]:
    """Read a state dict: the tensor's name -> its numbers.

    Raises:
        ValueError: the file is damaged, is no state dict, or its pickle asks for anything but tensors.
    """
    try:
        with file.open("rb") as stream:
            is_zip = stream.read(4) == b"PK\x03\x04"
            stream.seek(0)
            content = _read_zip(stream) if is_zip else _read_legacy(stream)
        return _tensors(_state_dict(content))
    # A damaged pickle can end in almost any exception.
    except Exception as error:
        raise ValueError(f"{file} is not a PyTorch file of tensors: {error}") from error


def _state_dict(content: Any) -> Any:
    """The state dict, taken out of a checkpoint that holds one beside the epoch, the optimizer and so on.

    Raises:
        ValueError: it holds several.
    """
    if not isinstance(content, dict) or any(isinstance(value, _Tensor) for value in content.values()):
        return content
    parts = [
        name
        for name, part in content.items()
        if isinstance(part, dict) and part and all(isinstance(value, _Tensor) for value in part.values())
    ]
    if len(parts) > 1:
        raise ValueError(f"it holds more than one state dict: {', '.join(map(str, parts))}; save one alone")
    return content[parts[0]] if parts else content


def _tensors(content: Any) -> dict[str, np.ndarray]:
    if not isinstance(content, dict) or not content:
        raise ValueError("it holds no state dict")
    tensors = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise ValueError(f"the entry {name!r} is not a tensor")
        try:
            tensors[name] = value.resolve()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return tensors


def _read_zip(stream: IO[bytes]) -> Any:
    with zipfile.ZipFile(stream) as archive:
        pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("the archive has no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        # PyTorch stores its data uncompressed, so nothing here is larger than the file.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("the archive is compressed")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        storages: dict[str, _Storage] = {}
        content = _Unpickler(io.BytesIO(archive.read(pickles[0])), storages).load()
        for key, storage in storages.items():
            _fill(storage, archive.read(f"{folder}data/{key}"))
    return content


def _read_legacy(stream: IO[bytes]) -> Any:
    storages: dict[str, _Storage] = {}

    def load() -> Any:
        return _Unpickler(stream, storages).load()

    if load() != LEGACY_MAGIC or load() != LEGACY_PROTOCOL:
        raise ValueError("it does not begin as PyTorch's files do")
    if load().get("little_endian") is not True:
        raise ValueError("its numbers are big-endian")
    content = load()
    for key in load():
        storage = storages[str(key)]
        (count,) = struct.unpack("<q", stream.read(8))
        if count != storage.count:
            raise ValueError(f"a storage of {storage.count} numbers has {count}")
        _fill(storage, stream.read(storage.size_bytes))
    return content


def _fill(storage: _Storage, data: bytes) -> None:
    if len(data) != storage.size_bytes:
        raise ValueError(f"a storage of {storage.count} numbers has {len(data)} bytes; the file is cut short")
    if storage.kind == BFLOAT16:
        storage.values = bfloat16.widen(data)
    else:
        storage.values = np.frombuffer(data, STORAGE_DTYPES[storage.kind])
