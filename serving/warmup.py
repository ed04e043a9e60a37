"""Warm-up requests: what TensorFlow Serving runs once before it calls a version ready.

A record is a `tensorflow_serving.apis.PredictionLog`. That class comes with the package
tensorflow-serving-api alone, which an export should not need; of its many fields a request uses four, nested,
each a number, a length and its content. So they are written here, and the tests read them with the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

# Where the server looks in a version's folder, and how many records it runs at most.
WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000

# Numbers of the fields in tensorflow_serving/apis: prediction_log.proto, predict.proto, model.proto.
_LOG_PREDICT, _PREDICT_REQUEST = 6, 1
_REQUEST_MODEL, _REQUEST_INPUTS = 1, 2
_MODEL_SIGNATURE = 3
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


def write_warmup(folder: Path, requests: Iterable[tuple[str, Mapping[str, np.ndarray]]]) -> None:
    """Write requests, each a signature's name and its inputs, where the server reads them.

    Raises:
        ValueError: there are more than the server runs.
    """
    requests = list(requests)
    if len(requests) > MAX_RECORDS:
        raise ValueError(f"there must be at most {MAX_RECORDS} warm-up requests; got {len(requests)}")
    file = folder / WARMUP_FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, inputs in requests:
            writer.write(_prediction_log(signature, inputs))


def _prediction_log(signature: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    """A serialised `PredictionLog` of one predict request."""
    request = _field(_REQUEST_MODEL, _field(_MODEL_SIGNATURE, signature.encode()))
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        entry = _field(_ENTRY_KEY, name.encode()) + _field(_ENTRY_VALUE, tensor)
        request += _field(_REQUEST_INPUTS, entry)
    return _field(_LOG_PREDICT, _field(_PREDICT_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that has a length: a string, bytes or another message."""
    kind = 2
    return _varint(number << 3 | kind) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth is set where more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
