"""TensorFlow Serving's JSON: requests to arrays, arrays to responses."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from serving.development.errors import invalid

BYTES_SUFFIX = "_bytes"
MAX_DIMENSIONS = 8
SHOWN_CHARACTERS = 100
_KINDS: dict[Any, set[type]] = {tf.bool: {bool}, tf.float32: {int, float}, tf.float64: {int, float}}


def parse_predict(body: bytes, signature_of: Callable[[str], Any]) -> tuple[Any, dict[str, np.ndarray], bool]:
    """Read the body of a predict request.

    Args:
        body: JSON with `instances` (row format) or `inputs` (column format), and maybe `signature_name`.
        signature_of: name, empty for the default -> signature.

    Returns:
        The signature, the inputs, and whether they came in row format.

    Raises:
        StatusError: the body is anything else.
    """
    try:
        document = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} is not an object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' key must be a string value.")
    signature = signature_of(name)
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    if ("instances" in document) == ("inputs" in document):
        raise invalid("The request must have one of the keys 'inputs' and 'instances', and not both")
    if "instances" in document:
        columns = _columns_of_rows(document["instances"], signature.inputs)
    else:
        columns = _columns(document["inputs"], signature.inputs)
    inputs = {name: _tensor(columns[name], info.dtype) for name, info in signature.inputs.items()}
    return signature, inputs, "instances" in document


def format_predict(outputs: Mapping[str, np.ndarray], in_rows: bool) -> bytes:
    """The body of the response: `predictions` by row, `outputs` by column; a single one without its name."""
    columns = {name: _values(name, value) for name, value in outputs.items()}
    content: Any = columns
    if len(columns) == 1:
        (content,) = columns.values()
    elif in_rows:
        sizes = {value.shape[:1] for value in outputs.values()}
        if len(sizes) != 1 or () in sizes:
            raise invalid("The outputs have different first dimensions; use the column format ('inputs')")
        content = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return to_json({"predictions" if in_rows else "outputs": content})


def to_json(value: Any) -> bytes:
    """JSON in UTF-8; bytes of strings that are not UTF-8 pass as they are."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _columns_of_rows(instances: Any, names: Mapping[str, Any]) -> Mapping[str, list[Any]]:
    if not isinstance(instances, list) or not instances:
        raise invalid("Expecting 'instances' to be a list of at least one value")
    are_named = _is_object(instances[0])
    if not are_named and len(names) > 1:
        raise invalid("instances is a plain list, but expecting list of objects as there are several inputs")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for number, element in enumerate(instances):
        if _is_object(element) != are_named:
            raise invalid(f"Item {number} of 'instances' must be as the first one; got {_shown(element)}")
        row = element if are_named else {next(iter(names)): element}
        if set(row) != set(columns):
            raise invalid(
                f"Item {number} of 'instances' must have the keys {', '.join(sorted(columns))}; "
                f"got {_shown(', '.join(row))}"
            )
        for name, value in row.items():
            columns[name].append(value)
    return columns


def _columns(inputs: Any, names: Mapping[str, Any]) -> Mapping[str, Any]:
    if not _is_object(inputs):
        if len(names) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object as there are several inputs")
        return {next(iter(names)): inputs}
    missing = [name for name in names if name not in inputs]
    if missing:
        raise invalid(f"Missing named input: {', '.join(missing)} in 'inputs' object.")
    return inputs


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
    kinds = _KINDS.get(dtype, {int})
    for each in values.flat:
        if type(each) not in kinds:
            raise invalid(f"JSON Value: {_shown(each)} is not of expected type: {dtype.name}")
    try:
        return np.array(values.tolist(), dtype.as_numpy_dtype).reshape(values.shape)
    except OverflowError as error:
        raise invalid(f"A value is out of the range of {dtype.name}: {error}") from error


def _string(value: Any) -> bytes:
    if isinstance(value, dict):
        if not _is_base64(value):
            raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
        text = "".join(value["b64"].split())
        try:
            # Padding may be left out, as in the C++ server.
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid(f"Unable to base64 decode: {error}") from error
    if not isinstance(value, str):
        raise invalid(f"JSON Value: {_shown(value)} is not of expected type: string")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise invalid(f"A string must be valid Unicode: {error}") from error


def _values(name: str, value: np.ndarray) -> Any:
    """Nested lists; strings as text, in base64 where the output's name says that they are bytes."""
    if value.dtype != object:
        return value.tolist()

    def as_json(content: bytes) -> Any:
        if name.endswith(BYTES_SUFFIX):
            return {"b64": base64.b64encode(content).decode("ascii")}
        return content.decode("utf-8", "surrogateescape")

    texts = np.empty(value.size, object)
    texts[:] = [as_json(content) for content in value.flat]
    return texts.reshape(value.shape).tolist()


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _shown(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except RecursionError:  # read without one, as reading takes less of the stack
        text = "what is nested too deep to be shown"
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
