"""The weights and inputs of `RLL_SHARED/reference/README.md`, and writers of the formats they come in."""

import io
import json
import math
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

SEED = 7
CAFFE_MEAN, PYTORCH_MEAN = (104, 117, 123), (104, 117, 128)


def folder():
    """The folder of reference files; the test is skipped where it is not there."""
    shared = os.environ.get("RLL_SHARED")
    if not shared:
        pytest.skip("RLL_SHARED is not set: the reference activations are not at hand")
    return Path(shared) / "reference"


def rng(key):
    """The generator for one tensor."""
    return np.random.default_rng([SEED, zlib.crc32(key.encode())])


def pytorch_tensors():
    """The PyTorch port's state dict."""
    shapes = json.loads((folder() / "bn_inception_state_dict_shapes.json").read_text())
    return {name: _pytorch_tensor(name, shape) for name, shape in shapes.items()}


def _pytorch_tensor(name, shape):
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return np.array(0, np.int64)
    if kind == "running_var" or (kind == "weight" and len(shape) == 1):
        values = rng(name).uniform(0.5, 1.5, shape)
    elif kind in ("running_mean", "bias"):
        values = rng(name).normal(0, 0.1, shape)
    else:
        values = rng(name).normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
    return values.astype(np.float32)


def caffe_tensors():
    """Each of the Caffe network's layers -> its blobs."""
    layers = json.loads((folder() / "caffe_blob_shapes.json").read_text())
    return {name: _caffe_blobs(name, layer["type"], layer["shapes"]) for name, layer in layers.items()}


def _caffe_blobs(name, kind, shapes):
    def draw(number):
        return rng(f"{name}/{number}")

    if kind == "BatchNorm":
        factor = draw(2).uniform(500, 1000, shapes[2])
        blobs = [
            draw(0).normal(0, 0.1, shapes[0]) * factor,
            draw(1).uniform(0.5, 1.5, shapes[1]) * factor,
            factor,
        ]
    elif kind == "Scale":
        blobs = [draw(0).uniform(0.5, 1.5, shapes[0]), draw(1).normal(0, 0.1, shapes[1])]
    else:
        blobs = [
            draw(number).normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
            for number, shape in enumerate(shapes)
        ]
    return [blob.astype(np.float32) for blob in blobs]


def caffe_tensors_for(model):
    """The same for another input size, which the dense layers after a flattened tap depend on."""
    layers = caffe_tensors()
    for name in ("loss1/fc", "loss2/fc"):
        layers[name] = [layers[name][0][:, : model.get_layer(name.replace("/", "_")).kernel.shape[0]]]
    return layers


def inputs(px, mean):
    """Two pictures, [2, px, px, 3]."""
    values = np.random.default_rng([SEED, px]).uniform(0, 255, (2, 3, px, px)).astype(np.float32)
    return values.transpose(0, 2, 3, 1) - np.array(mean, np.float32)


def assert_taps(taps, golden, prefix=""):
    """Each tap's shape, channel means and samples are the reference's, to 1e-4 of their largest."""
    for tap, outputs in taps.items():
        name = f"{prefix}{tap.removeprefix('inception_') if prefix else tap}"
        values = np.asarray(outputs).transpose(0, 3, 1, 2)
        assert values.shape == tuple(golden[f"{name}_shape"])
        indices = np.random.default_rng(0).integers(0, values.size, 2000)
        for what, got in (("channel_mean", values.mean((2, 3))), ("sample", values.ravel()[indices])):
            wanted = golden[f"{name}_{what}"]
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def write_caffemodel(file, layers, old=False):
    """Write blobs as Caffe does; `old` in the form that it had until 2014."""
    with file.open("wb") as stream:
        stream.write(_message(1, b"inception_bn"))
        for name, blobs in layers.items():
            content = _message(4 if old else 1, name.encode())
            content += b"".join(_message(6 if old else 7, _blob(blob, old)) for blob in blobs)
            stream.write(_message(2 if old else 100, content))


def _blob(blob, old):
    if not old:
        shape = _message(7, _message(1, b"".join(map(_varint, blob.shape))))
        return shape + _message(5, blob.astype("<f4").tobytes())
    dims = (1,) * (4 - blob.ndim) + blob.shape
    shape = b"".join(_varint(field << 3) + _varint(size) for field, size in enumerate(dims, 1))
    return shape + _message(5, blob.astype("<f4").tobytes())


def _message(field, content):
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_pth(file, tensors, legacy=False, content=None):
    """Write a state dict as PyTorch does, opcode by opcode; `legacy` in the form that it had until 1.6.

    `content` replaces the pickle of the state dict.
    """
    content = pickled_state_dict(tensors) if content is None else content
    if legacy:
        head = (
            0x1950A86A20F9469CFC6C,
            1001,
            {"protocol_version": 1001, "little_endian": True, "type_sizes": {}},
        )
        with file.open("wb") as stream:
            stream.write(b"".join(pickle.dumps(part, 2) for part in head))
            stream.write(content)
            stream.write(pickle.dumps([str(key) for key in range(len(tensors))], 2))
            for array in tensors.values():
                stream.write(struct.pack("<q", array.size) + np.ascontiguousarray(array).tobytes())
        return
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", b"little")
        for key, array in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{key}", np.ascontiguousarray(array).tobytes())
        archive.writestr("archive/version", b"3\n")


def pickled_state_dict(tensors, shape=None, strides=None, offset=0):
    """The pickle of a state dict; `shape`, `strides` and `offset` replace every tensor's own."""
    ordered_dict = b"ccollections\nOrderedDict\n)R"
    out = io.BytesIO()
    out.write(b"\x80\x02" + ordered_dict + b"(")
    for key, (name, array) in enumerate(tensors.items()):
        storage = {"int64": b"LongStorage", "uint16": b"BFloat16Storage"}.get(
            array.dtype.name, b"FloatStorage"
        )
        steps = np.ascontiguousarray(array).strides[: array.ndim]
        sides = array.shape if shape is None else shape
        jumps = [step // array.itemsize for step in steps] if strides is None else strides
        out.write(_text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(")
        out.write(b"(" + _text("storage") + b"ctorch\n" + storage + b"\n" + _text(str(key)) + _text("cpu"))
        out.write(_number(array.size) + b"tQ" + _number(offset))
        for numbers in (sides, jumps):
            out.write(b"(" + b"".join(map(_number, numbers)) + b"t")
        out.write(b"\x89" + ordered_dict + b"tR")
    out.write(b"u.")
    return out.getvalue()


def _text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def write_safetensors(file, tensors):
    """Write tensors of float32, int64 and, as bits of uint16, bfloat16."""
    header, numbers = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        first = len(numbers)
        numbers += np.ascontiguousarray(array).tobytes()
        dtype = {"float32": "F32", "int64": "I64", "uint16": "BF16"}[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [first, len(numbers)]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + numbers)
