"""The gRPC calls with the official message classes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.development.model import SIGNATURES_FIELD, ServedModel
from serving.development.refusal import INTERNAL, INVALID_ARGUMENT, RefusalError
from serving.development.servable import DEFAULT_SIGNATURE
from serving.development.tensors import from_proto, to_proto

_CODES = {code.value[0]: code for code in grpc.StatusCode}
THREADS = 32
# A message travels in a header of at most 8 KiB, where a byte may take three.
MESSAGE_LIMIT_BYTES = 1024


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802  the service's name
        return _answered(context, lambda: self._predict(request))

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _answered(context, lambda: self._metadata(request))

    def _predict(self, request: Any) -> Any:
        servable = self._model.servable(request.model_spec)
        signature = request.model_spec.signature_name
        inputs = {name: from_proto(value) for name, value in request.inputs.items()}
        outputs = self._model.predict(servable, signature, inputs, list(request.output_filter))
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = servable.version
        response.model_spec.signature_name = signature or DEFAULT_SIGNATURE
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(to_proto(value))
        return response

    def _metadata(self, request: Any) -> Any:
        fields = list(request.metadata_field)
        if fields != [SIGNATURES_FIELD]:
            raise RefusalError(INVALID_ARGUMENT, f"metadata_field must be {SIGNATURES_FIELD}; got {fields}")
        return self._model.metadata(request.model_spec)


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _answered(context, lambda: self._model.status(request.model_spec))


def _answered(context: Any, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except RefusalError as refusal:
        return context.abort(_CODES[refusal.code], _trimmed(refusal.message))
    except Exception as error:  # a caller must hear of it, and the server must go on
        return context.abort(_CODES[INTERNAL], _trimmed(repr(error)))


def _trimmed(message: str) -> str:
    encoded = message.encode("utf-8")
    if len(encoded) <= MESSAGE_LIMIT_BYTES:
        return message
    return encoded[:MESSAGE_LIMIT_BYTES].decode("utf-8", "ignore") + "...TRUNCATED"


def grpc_server(address: str, model: ServedModel, max_body_bytes: int) -> tuple[Any, int]:
    """A server that is not started yet, and its port.

    Args:
        address: `host:port`; port 0 takes a free one.
        model: what answers.
        max_body_bytes: larger requests are refused as RESOURCE_EXHAUSTED; answers may have any size.

    Raises:
        OSError: the port is taken.
    """
    server = grpc.server(
        ThreadPoolExecutor(THREADS, thread_name_prefix="grpc"),
        options=[
            ("grpc.max_receive_message_length", max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a taken port is an error, not a shared one
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_PredictionService(model), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(model), server)
    try:
        return server, server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"gRPC can't listen on {address}: {error}") from error
