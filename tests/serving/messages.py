"""Two of TensorFlow Serving's messages that the package `tensorflow-serving-api` leaves out.

The server reads its batching parameters and its monitoring configuration as text of these messages; the
package ships the messages of the calls and of the model configuration only. Their fields are declared here
with TensorFlow Serving's names, numbers and types (`session_bundle_config.proto`, `monitoring_config.proto`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

_PACKAGE = "tensorflow.serving"
_Field = descriptor_pb2.FieldDescriptorProto
# message -> field -> (number, type, is repeated)
_MESSAGES: dict[str, dict[str, tuple[int, str, bool]]] = {
    "BatchingParameters": {
        "max_batch_size": (1, ".google.protobuf.Int64Value", False),
        "batch_timeout_micros": (2, ".google.protobuf.Int64Value", False),
        "max_enqueued_batches": (3, ".google.protobuf.Int64Value", False),
        "num_batch_threads": (4, ".google.protobuf.Int64Value", False),
        "thread_pool_name": (5, ".google.protobuf.StringValue", False),
        "allowed_batch_sizes": (6, "int64", True),
        "pad_variable_length_inputs": (7, "bool", False),
        "enable_large_batch_splitting": (8, ".google.protobuf.BoolValue", False),
        "max_execution_batch_size": (9, ".google.protobuf.Int64Value", False),
    },
    "PrometheusConfig": {"enable": (1, "bool", False), "path": (2, "string", False)},
    "MonitoringConfig": {"prometheus_config": (1, f".{_PACKAGE}.PrometheusConfig", False)},
}
_SCALARS = {"int64": _Field.TYPE_INT64, "bool": _Field.TYPE_BOOL, "string": _Field.TYPE_STRING}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="rll_tf/tensorflow_serving_configuration.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, is_repeated) in fields.items():
            declared = message.field.add(name=field, number=number)
            declared.label = _Field.LABEL_REPEATED if is_repeated else _Field.LABEL_OPTIONAL
            declared.type = _SCALARS.get(kind, _Field.TYPE_MESSAGE)
            if kind not in _SCALARS:
                declared.type_name = kind
    # A pool of their own: a later package may bring the originals.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _classes()
BatchingParameters: Any = _CLASSES["BatchingParameters"]
MonitoringConfig: Any = _CLASSES["MonitoringConfig"]


def read_text(file: Path, message_class: Any) -> Any:
    """Read a message from a file in protobuf's text format.

    Raises:
        ValueError: it is no such message; the message names the file.
    """
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), message_class())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        name = message_class.DESCRIPTOR.name
        raise ValueError(f"{file} must hold a {name} message in text format: {error}") from error
