"""Tensors as messages, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving.development.refusal import INVALID_ARGUMENT, RefusalError

# A message may give one value and claim any number of equal ones: so many are believed, of so many bytes.
MOST_REPEATED_VALUES, MOST_REPEATED_BYTES = 2**20, 2**26
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
    """The array that a TensorProto holds; strings as objects.

    Raises:
        RefusalError: it is of another dtype than these, or its shape and its values do not agree.
    """
    try:
        dtype = tf.dtypes.as_dtype(message.dtype)
        field = _FIELDS[dtype]
    except (TypeError, KeyError) as error:
        known = ", ".join(known.name for known in _FIELDS)
        raise RefusalError(
            INVALID_ARGUMENT, f"a tensor must be {known}; got dtype {message.dtype}"
        ) from error
    shape = [dimension.size for dimension in message.tensor_shape.dim]
    if message.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise RefusalError(INVALID_ARGUMENT, f"a tensor must have a known shape; got {shape}")
    claimed = math.prod(shape)
    if message.tensor_content:
        given = len(message.tensor_content) / dtype.size if dtype != tf.string else -1
        is_whole = given == claimed
    else:
        values = getattr(message, field)
        given = len(values)
        is_whole = given == claimed
        if 0 < given < claimed <= MOST_REPEATED_VALUES:  # the last one is repeated
            value_bytes = len(values[-1]) if dtype == tf.string else dtype.size
            is_whole = value_bytes * claimed <= MOST_REPEATED_BYTES
    if not is_whole:
        raise RefusalError(
            INVALID_ARGUMENT, f"a tensor of shape {shape} must hold {claimed} values; it holds {given:g}"
        )
    try:
        return tf.make_ndarray(message)
    except (ValueError, TypeError, OverflowError) as error:
        raise RefusalError(INVALID_ARGUMENT, f"not a whole tensor: {error}") from error


def to_proto(value: np.ndarray) -> Any:
    """The array as a TensorProto with a value a field, the form in which TensorFlow Serving answers."""
    dtype = tf.dtypes.as_dtype(value.dtype)
    message = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in value.shape:
        message.tensor_shape.dim.add(size=size)
    getattr(message, _FIELDS[dtype]).extend(value.ravel().tolist())
    return message
