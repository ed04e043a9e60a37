"""Tensors as messages, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving.development.errors import invalid

# A message may hold one value and a shape of any number of equal ones; the array has at most so many bytes.
MAX_BYTES = 2**28
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int32: "int_val",
    tf.uint8: "int_val",
    tf.int64: "int64_val",
    tf.string: "string_val",
    tf.bool: "bool_val",
}


def from_proto(message: Any) -> np.ndarray:
    """The array of a TensorProto; strings as objects.

    Raises:
        StatusError: its dtype is none of these, it is too large, or its shape and its values do not agree.
    """
    try:
        dtype = tf.dtypes.as_dtype(message.dtype)
        values = getattr(message, _FIELDS[dtype])
    except (TypeError, KeyError) as error:
        known = ", ".join(known.name for known in _FIELDS)
        raise invalid(f"a tensor must be {known}; got dtype {message.dtype}") from error
    shape = [dimension.size for dimension in message.tensor_shape.dim]
    if message.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise invalid(f"a tensor must have a known shape; got {shape}")
    count = math.prod(shape)
    if not message.tensor_content and count > len(values):  # the last one is repeated
        value_bytes = max(map(len, values), default=0) if dtype == tf.string else dtype.size
        if count * max(1, value_bytes) > MAX_BYTES:
            raise invalid(f"a tensor must have at most {MAX_BYTES} bytes; got one of shape {shape}")
    try:
        return tf.make_ndarray(message)
    except (ValueError, TypeError, OverflowError) as error:
        raise invalid(f"a tensor of shape {shape} must hold as many values: {error}") from error


def to_proto(value: np.ndarray) -> Any:
    """The array as a TensorProto with a value a field, the form of TensorFlow Serving's responses."""
    dtype = tf.dtypes.as_dtype(value.dtype)
    message = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in value.shape:
        message.tensor_shape.dim.add(size=size)
    getattr(message, _FIELDS[dtype]).extend(value.ravel().tolist())
    return message
