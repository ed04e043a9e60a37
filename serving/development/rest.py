"""The REST calls over the standard library's threading HTTP server."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NoReturn

from google.protobuf import json_format
from tensorflow_serving.apis import model_pb2

from serving.development.errors import INTERNAL, INVALID_ARGUMENT, NOT_FOUND, StatusError, invalid
from serving.development.model import SIGNATURES_FIELD, ServedModel
from serving.development.rest_body import has_body, read_body
from serving.development.rest_format import format_predict, parse_predict, to_json

_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(_MODEL + r":(?P<method>classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(_MODEL + r"(?P<metadata>/metadata)?", re.IGNORECASE)
_NO_MODEL = re.compile(r"/v1/models(/metadata)?", re.IGNORECASE)
_PREFIX = "/v1/"
IDLE_S = 60
# How much of a rejected body is read and thrown away, so that its sender comes to read the response.
DISCARDED_BYTES, DISCARD_S = 2**28, 5
_CHUNK = 2**16


class RestServer(http.server.ThreadingHTTPServer):
    """REST calls for one model.

    Args:
        address: host and port; port 0 takes a free one.
        model: what is served.
        max_body_bytes: larger request bodies are rejected unread, with status 413.
    """

    daemon_threads = False  # a thread that is cut off within TensorFlow takes the process with it
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], model: ServedModel, max_body_bytes: int) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.model, self.max_body_bytes = model, max_body_bytes
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="rest", daemon=True)

    def start(self) -> None:
        """Accept connections, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Accept no more connections and read no more requests; those under way get their responses."""
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RD)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, and handle it in a thread of its own."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection, and close it."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    wbufsize = -1  # head and body leave in one piece
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Status or metadata."""
        self._respond(self._get)

    def do_POST(self) -> None:
        """Predict."""
        self._respond(self._post)

    def do_PUT(self) -> None:
        """No such call."""
        self._respond(self._malformed)

    do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = do_TRACE = do_PUT  # noqa: N815  the base class's names

    def log_message(self, *_: object) -> None:
        """Stay quiet: a client finds in its response what went wrong."""

    def _respond(self, call: Callable[[], bytes]) -> None:
        self._is_read = not has_body(self.headers)
        try:
            status, body = int(HTTPStatus.OK), call()
        except StatusError as error:
            status, body = error.http_status, to_json({"error": error.message})
        except OSError:  # the connection's
            raise
        except Exception as error:  # the client must get an error, and the server must go on
            status, body = StatusError(INTERNAL, "").http_status, to_json({"error": repr(error)})
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if not self._is_read:  # what follows must not be taken for the next request
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
            raise invalid("Missing model name in request.")
        match = _STATUS.fullmatch(self._resource)
        if match is None:
            self._malformed()
        if match["metadata"] is None:
            return to_json(_as_dict(self.server.model.status(_spec(match))))
        metadata = _as_dict(self.server.model.metadata(_spec(match)))
        del metadata["metadata"][SIGNATURES_FIELD]["@type"]
        return to_json(metadata)

    def _post(self) -> bytes:
        self._is_read = False
        body = read_body(self.headers, self.rfile, self.server.max_body_bytes)
        self._is_read = True
        match = _PREDICT.fullmatch(self._resource)
        if match is None:
            self._malformed()
        if match["method"].lower() != "predict":
            raise invalid(f"only predict is served; got {match['method']}")
        servable = self.server.model.servable(_spec(match))
        signature, inputs, in_rows = parse_predict(body, servable.signature)
        return format_predict(servable.run(signature, inputs), in_rows)

    @property
    def _resource(self) -> str:
        return self.path.partition("?")[0]

    def _malformed(self) -> NoReturn:
        code = INVALID_ARGUMENT if self._resource.lower().startswith(_PREFIX) else NOT_FOUND
        raise StatusError(code, f"Malformed request: {self.command} {self.path}")

    def _discard(self) -> None:
        self.connection.settimeout(DISCARD_S)
        left = DISCARDED_BYTES
        while left > 0 and (chunk := self.rfile.read1(_CHUNK)):
            left -= len(chunk)


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
