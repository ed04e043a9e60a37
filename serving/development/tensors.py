"""Tensors as messages, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving.development.errors import invalid

# One number may stand for a whole array of equal ones.
MAX_VALUES = 2**28
# The fields of the dtypes that exported models return.
_FIELDS = {tf.float32: "float_val", tf.int64: "int64_val", tf.string: "string_val"}


def from_proto(message: Any) -> np.ndarray:
    """The array of a TensorProto; strings as objects.

    Raises:
        StatusError: it has no such dtype or shape, or its values don't fill its shape.
    """
    shape = [dimension.size for dimension in message.tensor_shape.dim]
    if message.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise invalid(f"a tensor must have a known shape; got {shape}")
    is_string = message.dtype == tf.string.as_datatype_enum
    most = len(message.string_val) if is_string else MAX_VALUES
    if math.prod(shape) > most:
        raise invalid(f"a tensor must have at most {most} values; got one of shape {shape}")
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
