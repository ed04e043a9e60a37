"""Reads the blobs of a `.caffemodel`, a serialised protobuf message of type `NetParameter`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

# Only the fields that hold names and numbers; protobuf skips all others. The numbers are packed, so that a
# field of bytes reads them without making a Python object of each.
SCHEMA: dict[str, list[tuple[str, int, str]]] = {
    "Net": [("old_layers", 2, "OldLayer*"), ("layers", 100, "Layer*")],
    "Layer": [("name", 1, "string"), ("blobs", 7, "Blob*")],
    "OldLayer": [("name", 4, "string"), ("blobs", 6, "Blob*")],
    "Blob": [
        ("num", 1, "int64"),
        ("channels", 2, "int64"),
        ("height", 3, "int64"),
        ("width", 4, "int64"),
        ("data", 5, "bytes"),
        ("shape", 7, "Shape"),
        ("double_data", 8, "bytes"),
    ],
    "Shape": [("dim", 1, "int64*")],
}


@functools.cache
def _net_class() -> Any:
    """The message class that `SCHEMA` describes, in a pool of its own."""
    field = descriptor_pb2.FieldDescriptorProto
    scalars = {"string": field.TYPE_STRING, "bytes": field.TYPE_BYTES, "int64": field.TYPE_INT64}
    file = descriptor_pb2.FileDescriptorProto(name="rll_caffe.proto", package="rll_caffe", syntax="proto2")
    for name, rows in SCHEMA.items():
        kind = file.message_type.add(name=name)
        for row in rows:
            base = row[2].rstrip("*")
            kind.field.add(
                name=row[0],
                number=row[1],
                label=field.LABEL_REPEATED if row[2].endswith("*") else field.LABEL_OPTIONAL,
                type=scalars.get(base, field.TYPE_MESSAGE),
                type_name=None if base in scalars else f".rll_caffe.{base}",
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("rll_caffe.Net"))


def read_caffe(file: Path) -> dict[str, np.ndarray]:
    """Read a network's blobs: `{"<layer>/<number of the blob>": its numbers}`.

    Both forms are read: layers in field 100, or in field 2 with blobs of four dimensions each.

    Raises:
        ValueError: the file is damaged, or no network with blobs.
    """
    net = _net_class()()
    try:
        net.ParseFromString(file.read_bytes())
    except message.DecodeError as error:
        raise ValueError(f"{file} is not a whole .caffemodel: {error}") from error
    tensors: dict[str, np.ndarray] = {}
    for layer in (*net.layers, *net.old_layers):
        for number, blob in enumerate(layer.blobs):
            name = f"{layer.name}/{number}"
            if name in tensors:
                raise ValueError(f"{file} has two layers of the name {layer.name!r}")
            try:
                tensors[name] = _numbers(blob)
            except ValueError as error:
                raise ValueError(f"{file}: blob {number} of layer {layer.name!r}: {error}") from error
    if not tensors:
        raise ValueError(f"{file} is not a .caffemodel with weights: it has no layer with blobs")
    return tensors


def _numbers(blob: Any) -> np.ndarray:
    data, dtype = (blob.double_data, "<f8") if blob.double_data else (blob.data, "<f4")
    # Without a shape, a matrix is stored as [1, 1, rows, columns].
    old_shape = (blob.num, blob.channels, blob.height, blob.width)
    shape = blob.shape.dim if blob.HasField("shape") else old_shape
    return np.frombuffer(data, dtype).reshape(shape)
