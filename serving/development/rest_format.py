"""TensorFlow Serving's JSON: requests to arrays, arrays to responses."""

from __future__ import annotations

import base64
import binascii
import json
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from serving.development.errors import invalid

MAX_DIMENSIONS = 8


def parse_document(body: bytes) -> dict[str, Any]:
    """The JSON object at the body's start; a byte order mark before and bytes after it are passed over.

    Raises:
        StatusError: there is none.
    """
    try:
        text = body.decode("utf-8-sig", "surrogateescape").lstrip(" \t\r\n")
        document, end = json.JSONDecoder().raw_decode(text)
        text[:end].encode()  # what is not UTF-8 may follow
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {reprlib.repr(document)} is not an object")
    return document


def parse_predict(
    document: dict[str, Any], signature_of: Callable[[str], Any]
) -> tuple[Any, dict[str, np.ndarray], bool]:
    """Read a predict request.

    Args:
        document: `instances` (row format) or `inputs` (column format), and maybe `signature_name`.
        signature_of: name, empty for the default -> signature.

    Returns:
        The signature, the inputs, and whether they came in row format.

    Raises:
        StatusError: it holds anything else.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' key must be a string value.")
    signature = signature_of(name)
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    if ("instances" in document) == ("inputs" in document):
        raise invalid("The request must have one of the keys 'inputs' and 'instances', and not both")
    ((key, info),) = signature.inputs.items()  # an exported model's signatures have one each
    in_rows = "instances" in document
    values = _of_rows(document["instances"], key) if in_rows else _of_columns(document["inputs"], key)
    return signature, {key: _tensor(values, info.dtype)}, in_rows


def format_predict(outputs: Mapping[str, np.ndarray], in_rows: bool) -> bytes:
    """The body of the response: `predictions` by row, `outputs` by column; a single one without its name."""
    columns = {name: _values(value) for name, value in outputs.items()}
    content: Any = columns
    if len(columns) == 1:
        (content,) = columns.values()
    elif in_rows:
        content = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return to_json({"predictions" if in_rows else "outputs": content})


def to_json(value: Any) -> bytes:
    """JSON in UTF-8; bytes of strings that are not UTF-8 pass as they are."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _of_rows(instances: Any, name: str) -> list[Any]:
    if not isinstance(instances, list) or not instances:
        raise invalid("Expecting 'instances' to be a list of at least one value")
    if not any(map(_is_object, instances)):
        return instances
    for number, row in enumerate(instances):
        if not _is_object(row) or list(row) != [name]:
            raise invalid(
                f"Item {number} of 'instances' must be an object with the key {name}; got {reprlib.repr(row)}"
            )
    return [row[name] for row in instances]


def _of_columns(inputs: Any, name: str) -> Any:
    if not _is_object(inputs):
        return inputs
    if name not in inputs:
        raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return inputs[name]


def _tensor(value: Any, data_type: int) -> np.ndarray:
    """Nested lists to an array; where they are not equally long, lists are left among the values."""
    dtype = tf.dtypes.as_dtype(data_type)
    values = np.array(value, object)
    if values.ndim > MAX_DIMENSIONS:
        raise invalid(f"A tensor must have at most {MAX_DIMENSIONS} dimensions")
    if dtype == tf.string:
        converted = np.empty(values.size, object)
        converted[:] = [_string(each) for each in values.flat]
        return converted.reshape(values.shape)
    for each in values.flat:
        if type(each) is not int or not -(2**31) <= each < 2**31:
            raise invalid(f"JSON Value: {reprlib.repr(each)} is not of expected type: {dtype.name}")
    # TensorFlow Serving keeps the lowest 8 bits of a pixel's value.
    return np.array(values.tolist(), np.int64).reshape(values.shape).astype(dtype.as_numpy_dtype)


def _string(value: Any) -> bytes:
    if isinstance(value, dict):
        if not _is_base64(value):
            raise invalid(f"JSON Value: {reprlib.repr(value)} not formatted correctly for base64 data")
        text = "".join(value["b64"].split())
        try:
            # Padding may be left out, as in the C++ server.
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid(f"Unable to base64 decode: {error}") from error
    if not isinstance(value, str):
        raise invalid(f"JSON Value: {reprlib.repr(value)} is not of expected type: string")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise invalid(f"A string must be valid Unicode: {error}") from error


def _values(value: np.ndarray) -> Any:
    """Nested lists; strings as text."""
    if value.dtype != object:
        return value.tolist()
    texts = np.empty(value.size, object)
    texts[:] = [content.decode("utf-8", "surrogateescape") for content in value.flat]
    return texts.reshape(value.shape).tolist()


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)
