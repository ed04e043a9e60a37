"""The REST calls over the standard library's threading HTTP server."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NoReturn

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from serving.development.model import SIGNATURES_FIELD, ServedModel
from serving.development.refusal import INTERNAL, INVALID_ARGUMENT, NOT_FOUND, RefusalError
from serving.development.rest_body import BodyRefusedError, has_body, read_body
from serving.development.rest_format import format_predict, parse_predict, to_json

_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(_MODEL + r":(?P<method>classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(_MODEL + r"(?P<metadata>/metadata)?", re.IGNORECASE)
_NO_MODEL = re.compile(r"/v1/models(/metadata)?", re.IGNORECASE)
_PREFIX = "/v1/"
IDLE_S = 60
# How much of a refused body is read and thrown away, so that its sender comes to read the refusal.
DISCARDED_BYTES, DISCARD_S = 2**28, 5
_CHUNK = 2**16


class RestServer(http.server.ThreadingHTTPServer):
    """Answers REST calls for one model.

    Args:
        address: host and port; port 0 takes a free one.
        model: what answers.
        max_body_bytes: larger request bodies are refused unread, with status 413.
    """

    daemon_threads = False  # a thread that is cut off within TensorFlow takes the process with it
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], model: ServedModel, max_body_bytes: int) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.model, self.max_body_bytes = model, max_body_bytes
        self._under_way = 0
        self._connections: set[socket.socket] = set()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request as under way."""
        with self._changed:
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def drain(self, seconds: float) -> None:
        """Wait until no request is under way, then end the connections that only stay open."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way == 0, seconds)
            for connection in self._connections:
                with contextlib.suppress(OSError):  # its caller was faster
                    connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, and answer it in a thread of its own."""
        with self._changed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection, and close it."""
        with self._changed:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that went away is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    wbufsize = -1  # head and body leave in one piece
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Status or metadata."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Predict."""
        self._answer(self._post)

    @property
    def _resource(self) -> str:
        return self.path.partition("?")[0]

    def _malformed(self) -> NoReturn:
        code = INVALID_ARGUMENT if self._resource.lower().startswith(_PREFIX) else NOT_FOUND
        raise RefusalError(code, f"Malformed request: {self.command} {self.path}")

    def do_PUT(self) -> None:
        """No such call."""
        self._answer(self._malformed)

    do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = do_TRACE = do_PUT  # noqa: N815  the base class's names

    def _answer(self, call: Any) -> None:
        with self.server.answering():
            self._write(call)

    def _write(self, call: Any) -> None:
        self._is_read = not has_body(self.headers)
        try:
            status, body = int(HTTPStatus.OK), call()
        except RefusalError as refusal:
            status, body = refusal.http_status, to_json({"error": refusal.message})
        except BodyRefusedError as error:
            self._is_read = False  # what follows, if anything does, must not be taken for a request
            status, body = error.status, to_json({"error": error.message})
        except OSError:
            raise
        except Exception as error:  # a caller must hear of it, and the server must go on
            status, body = RefusalError(INTERNAL, "").http_status, to_json({"error": repr(error)})
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if not self._is_read:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
        if not self._is_read:
            self._discard()

    def _get(self) -> bytes:
        if _NO_MODEL.fullmatch(self._resource):
            raise RefusalError(INVALID_ARGUMENT, "Missing model name in request.")
        match = _STATUS.fullmatch(self._resource)
        if match is None:
            self._malformed()
        spec = _spec(match)
        if match["metadata"] is None:
            return to_json(_as_dict(self.server.model.status(spec)))
        response = self.server.model.metadata(spec)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURES_FIELD].Unpack(signatures)
        return to_json(
            {
                "model_spec": _as_dict(response.model_spec),
                "metadata": {SIGNATURES_FIELD: _as_dict(signatures)},
            }
        )

    def _post(self) -> bytes:
        body = read_body(self.headers, self.rfile, self.server.max_body_bytes)
        self._is_read = True
        match = _PREDICT.fullmatch(self._resource)
        if match is None:
            self._malformed()
        if match["method"].lower() != "predict":
            raise RefusalError(INVALID_ARGUMENT, f"only predict is answered; got {match['method']}")
        servable = self.server.model.servable(_spec(match))
        signature, inputs, in_rows = parse_predict(body, lambda name: servable.signature(name).inputs)
        return format_predict(self.server.model.predict(servable, signature, inputs), in_rows)

    def _discard(self) -> None:
        self.connection.settimeout(DISCARD_S)
        left = DISCARDED_BYTES
        while left > 0 and (chunk := self.rfile.read1(_CHUNK)):
            left -= len(chunk)

    def log_message(self, *_: object) -> None:
        """Stay quiet: every answer says to its caller what went wrong."""


def _spec(match: re.Match[str]) -> Any:
    spec = model_pb2.ModelSpec(name=urllib.parse.unquote(match["name"]))
    if match["version"] is not None:
        spec.version.value = int(match["version"])
    if match["label"] is not None:
        spec.version_label = urllib.parse.unquote(match["label"])
    return spec


def _as_dict(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
