"""TensorFlow Serving's JSON: requests to arrays, arrays to answers."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from serving.development.refusal import INVALID_ARGUMENT, RefusalError

BYTES_SUFFIX = "_bytes"
MOST_DIMENSIONS = 8
SHOWN_CHARACTERS = 100
_KINDS: dict[Any, set[type]] = {tf.bool: {bool}, tf.float32: {int, float}, tf.float64: {int, float}}


def parse_predict(
    body: bytes, inputs_of: Callable[[str], Mapping[str, Any]]
) -> tuple[str, dict[str, np.ndarray], bool]:
    """Read the body of a predict request.

    Args:
        body: JSON with `instances` (row format) or `inputs` (column format), and maybe `signature_name`.
        inputs_of: signature name -> input name -> TensorInfo.

    Returns:
        The signature's name (empty for the default), the inputs, and whether they came in row format.

    Raises:
        RefusalError: the body is anything else.
    """
    try:
        document = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _refusal(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise _refusal(f"JSON Value: {_shown(document)} is not an object")
    signature = document.get("signature_name", "")
    if not isinstance(signature, str):
        raise _refusal("'signature_name' key must be a string value.")
    infos = inputs_of(signature)
    if not infos:
        raise _refusal(f"Failed to get input map for signature: {signature or 'DEFAULT'}")
    if ("instances" in document) == ("inputs" in document):
        raise _refusal("The request must have one of the keys 'inputs' and 'instances', and not both")
    if "instances" in document:
        return signature, _rows(document["instances"], infos), True
    return signature, _columns(document["inputs"], infos), False


def format_predict(outputs: Mapping[str, np.ndarray], as_rows: bool) -> bytes:
    """The body of the answer: `predictions` by row, `outputs` by column; one output goes without its name."""
    columns = {name: _values(name, value) for name, value in outputs.items()}
    answer: Any
    if len(columns) == 1:
        (answer,) = columns.values()
    elif as_rows:
        sizes = {len(column) if isinstance(column, list) else -1 for column in columns.values()}
        if len(sizes) != 1 or -1 in sizes:
            raise _refusal("The outputs have different first dimensions; ask in column format ('inputs')")
        answer = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    else:
        answer = columns
    return to_json({"predictions" if as_rows else "outputs": answer})


def to_json(value: Any) -> bytes:
    """JSON in UTF-8; bytes of strings that are not UTF-8 pass as they are."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _rows(instances: Any, infos: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not isinstance(instances, list):
        raise _refusal("Expecting 'instances' to be an list/array")
    if not instances:
        raise _refusal("No values in 'instances' array")
    named = _is_object(instances[0])
    if not named and len(infos) > 1:
        raise _refusal("instances is a plain list, but expecting list of objects as there are several inputs")
    columns: dict[str, list[Any]] = {name: [] for name in infos}
    for number, element in enumerate(instances):
        if _is_object(element) != named:
            raise _refusal(f"Item {number} of 'instances' must be as the first one; got {_shown(element)}")
        row = element if named else {next(iter(infos)): element}
        if set(row) != set(columns):
            raise _refusal(
                f"Item {number} of 'instances' must have the keys {', '.join(sorted(columns))}; "
                f"got {_shown(', '.join(row))}"
            )
        for name, value in row.items():
            columns[name].append(value)
    return {name: _tensor(column, infos[name].dtype) for name, column in columns.items()}


def _columns(inputs: Any, infos: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not _is_object(inputs):
        if len(infos) > 1:
            raise _refusal(
                "inputs is a plain value/list, but expecting an object as there are several inputs"
            )
        ((name, info),) = infos.items()
        return {name: _tensor(inputs, info.dtype)}
    missing = [name for name in infos if name not in inputs]
    if missing:
        raise _refusal(f"Missing named input: {', '.join(missing)} in 'inputs' object.")
    return {name: _tensor(inputs[name], info.dtype) for name, info in infos.items()}


def _tensor(value: Any, data_type: int) -> np.ndarray:
    dtype = tf.dtypes.as_dtype(data_type)
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if len(shape) > MOST_DIMENSIONS:
            raise _refusal(f"A tensor must have at most {MOST_DIMENSIONS} dimensions")
        first = first[0] if first else None
    leaves: list[Any] = []
    _flatten(value, shape, 0, leaves)
    if dtype == tf.string:
        converted = np.empty(len(leaves), object)
        converted[:] = [_string(leaf) for leaf in leaves]
        return converted.reshape(shape)
    kinds = _KINDS.get(dtype, {int})
    for leaf in leaves:
        if type(leaf) not in kinds:
            raise _refusal(f"JSON Value: {_shown(leaf)} is not of expected type: {dtype.name}")
    try:
        return np.array(leaves, dtype.as_numpy_dtype).reshape(shape)
    except OverflowError as error:
        raise _refusal(f"A value is out of the range of {dtype.name}: {error}") from error


def _flatten(value: Any, shape: list[int], level: int, leaves: list[Any]) -> None:
    """Append the leaves of nested lists, which must be as long as `shape` says at every level."""
    if not isinstance(value, list):
        if level != len(shape):
            raise _refusal(f"JSON Value: {_shown(value)} found at level {level}; expected at {len(shape)}")
        leaves.append(value)
        return
    if level >= len(shape):
        raise _refusal(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise _refusal(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for element in value:
        _flatten(element, shape, level + 1, leaves)


def _string(value: Any) -> bytes:
    if isinstance(value, dict):
        if not _is_base64(value):
            raise _refusal(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
        text = "".join(value["b64"].split())
        try:
            # Padding may be left out, as in the C++ server.
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise _refusal(f"Unable to base64 decode: {error}") from error
    if not isinstance(value, str):
        raise _refusal(f"JSON Value: {_shown(value)} is not of expected type: string")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _refusal(f"A string must be valid Unicode: {error}") from error


def _values(name: str, value: np.ndarray) -> Any:
    if value.dtype != object:
        return value.tolist()
    if name.endswith(BYTES_SUFFIX):
        return _map(value.tolist(), lambda content: {"b64": base64.b64encode(content).decode("ascii")})
    return _map(value.tolist(), lambda content: content.decode("utf-8", "surrogateescape"))


def _map(value: Any, change: Callable[[bytes], Any]) -> Any:
    return [_map(element, change) for element in value] if isinstance(value, list) else change(value)


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


def _refusal(message: str) -> RefusalError:
    return RefusalError(INVALID_ARGUMENT, message)
