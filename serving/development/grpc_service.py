"""The gRPC calls with the official message classes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

from serving.client import DEFAULT_SIGNATURE
from serving.development.access_log import AccessLog
from serving.development.errors import INTERNAL, StatusError
from serving.development.model import ServedModel
from serving.development.tensors import from_proto, to_proto

_CODES = {code.value[0]: code for code in grpc.StatusCode}
THREADS = 32
# A message travels in a header of at most 8 KiB, where a byte may take three.
MESSAGE_LIMIT_BYTES = 1024


class _Service(
    prediction_service_pb2_grpc.PredictionServiceServicer, model_service_pb2_grpc.ModelServiceServicer
):
    def __init__(self, model: ServedModel, access_log: AccessLog) -> None:
        self._model, self._access_log = model, access_log

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802  the service's name
        return self._respond("Predict", context, lambda: self._predict(request))

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._respond("GetModelMetadata", context, lambda: self._model.metadata(request))

    def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._respond("GetModelStatus", context, lambda: self._model.status(request))

    def _respond(self, method: str, context: Any, call: Callable[[], Any]) -> Any:
        what, began = f"{context.peer()} gRPC {method}", time.monotonic()
        try:
            response = call()
            self._access_log.accepted(what, "OK", began)
            return response
        except StatusError as error:
            code, message = _CODES[error.code], error.message
        except Exception as error:  # the client must get an error, and the server must go on
            code, message = _CODES[INTERNAL], repr(error)
        self._access_log.refused(what, code.name, began, message)
        return context.abort(code, _trimmed(message))

    def _predict(self, request: Any) -> Any:
        spec = request.model_spec
        servable = self._model.servable(spec)
        signature = servable.signature(spec.signature_name)
        inputs = {name: from_proto(value) for name, value in request.inputs.items()}
        outputs = servable.run(signature, inputs, list(request.output_filter))
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = servable.version
        response.model_spec.signature_name = spec.signature_name or DEFAULT_SIGNATURE
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(to_proto(value))
        return response


def _trimmed(message: str) -> str:
    return message.encode()[:MESSAGE_LIMIT_BYTES].decode(errors="ignore")


def grpc_server(address: str, model: ServedModel, max_body_bytes: int, access_log: AccessLog) -> Any:
    """A server that is not started yet.

    Args:
        address: `host:port`.
        model: what is served.
        max_body_bytes: larger requests are rejected as RESOURCE_EXHAUSTED; responses may have any size.
        access_log: gets a line for a request.

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
    service = _Service(model, access_log)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"gRPC can't listen on {address}: {error}") from error
    return server
