"""The REST calls over the standard library's threading HTTP server."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NoReturn

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from serving.development.access_log import AccessLog
from serving.development.errors import (
    FAILED_PRECONDITION,
    INTERNAL,
    INVALID_ARGUMENT,
    NOT_FOUND,
    StatusError,
    invalid,
)
from serving.development.model import SIGNATURES_FIELD, ServedModel
from serving.development.page import PAGE_FILE, TRY_PATH, find_neighbours
from serving.development.rest_body import has_body, read_body
from serving.development.rest_format import format_predict, parse_document, parse_predict, to_json

# TensorFlow Serving's own expressions. A query string belongs to the path, and a method whose letters' case
# differs matches and is refused afterwards.
_WHICH = r"(?:(?:/versions/(?P<version>\d+))|(?:/labels/(?P<label>[^/:]+)))?"
_PREDICT = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_WHICH}:(?P<method>classify|regress|predict)", re.IGNORECASE
)
_STATUS = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_WHICH}(?:/(?P<field>metadata))?", re.IGNORECASE)
_PREFIX = "/v1/"
_MOST_VERSION = 2**63 - 1
HEALTH_PATH = "/healthz"
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
        access_log: gets a line for a request.
        has_page: show a page at `/` to try the model with.
    """

    daemon_threads = False  # a thread that is cut off within TensorFlow takes the process with it
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        model: ServedModel,
        max_body_bytes: int,
        access_log: AccessLog,
        has_page: bool = False,
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.model, self.max_body_bytes = model, max_body_bytes
        self.access_log, self.has_page = access_log, has_page
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
        """Nothing: a client may go away."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    wbufsize = -1  # head and body leave in one piece
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Status, metadata, health or the page."""
        self._respond(self._get)

    def do_POST(self) -> None:
        """Predict."""
        self._respond(self._post)

    def do_OPTIONS(self) -> None:
        """What a browser asks before it calls another site."""
        self._respond(self._options)

    def do_PUT(self) -> None:
        """No call has this method."""
        self._respond(self._malformed)

    do_DELETE = do_PATCH = do_HEAD = do_PUT  # noqa: N815  the base class's names

    def log_message(self, *_: object) -> None:
        """Nothing here: `AccessLog` has a line for a request."""

    def _respond(self, call: Callable[[], bytes]) -> None:
        self._is_read = not has_body(self.headers)
        self._content_type = "application/json"
        what, began = f"{self.client_address[0]} REST {self.command} {self.path}", time.monotonic()
        message = None
        try:
            status, body = int(HTTPStatus.OK), call()
        except StatusError as error:
            status, message = error.http_status, error.message
        except OSError:  # the connection's
            raise
        except Exception as error:  # the client must get an error, and the server must go on
            status, message = StatusError(INTERNAL, "").http_status, repr(error)
        if message is None:
            self.server.access_log.accepted(what, status, began)
        else:
            self.server.access_log.refused(what, status, began, message)
            self._content_type, body = "application/json", to_json({"error": message})
        self.send_response(status)
        self.send_header("Content-Type", self._content_type)
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
        if self.path == HEALTH_PATH:
            return to_json({"version": self.server.model.current().version})
        if self.path == "/" and self.server.has_page:
            self._content_type = "text/html; charset=utf-8"
            return PAGE_FILE.read_bytes()
        match = _STATUS.fullmatch(self.path)
        if match is None:
            self._malformed()
        if match["name"] is None:
            raise invalid("Missing model name in request.")
        if match["field"] != "metadata":  # also where it is written otherwise
            request = get_model_status_pb2.GetModelStatusRequest(model_spec=_spec(match))
            return to_json(_as_dict(self.server.model.status(request)))
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=[SIGNATURES_FIELD])
        request.model_spec.CopyFrom(_spec(match))
        metadata = _as_dict(self.server.model.metadata(request))
        del metadata["metadata"][SIGNATURES_FIELD]["@type"]
        return to_json(metadata)

    def _post(self) -> bytes:
        self._is_read = False
        body = read_body(self.headers, self.rfile, self.server.max_body_bytes)
        self._is_read = True
        if self.path == TRY_PATH and self.server.has_page:
            return to_json(find_neighbours(self.server.model.current(), body))
        match = _PREDICT.fullmatch(self.path)
        if match is None or match["method"] != "predict":
            self._malformed()
        spec = _spec(match)
        document = parse_document(body)  # before the model is looked for, as TensorFlow Serving does
        servable = self.server.model.servable(spec)
        signature, inputs, in_rows = parse_predict(document, servable.signature)
        return format_predict(servable.run(signature, inputs), in_rows)

    def _options(self) -> bytes:
        if not self.path.lower().startswith(_PREFIX):
            self._malformed()
        if re.search("https?://", self.headers.get("Origin", "")) is None:
            raise StatusError(FAILED_PRECONDITION, "Origin header is missing in CORS preflight")
        return b""

    def _malformed(self) -> NoReturn:
        code = INVALID_ARGUMENT if self.path.lower().startswith(_PREFIX) else NOT_FOUND
        raise StatusError(code, f"Malformed request: {self.command} {self.path}")

    def _discard(self) -> None:
        self.connection.settimeout(DISCARD_S)
        left = DISCARDED_BYTES
        while left > 0 and (chunk := self.rfile.read1(_CHUNK)):
            left -= len(chunk)


def _spec(match: re.Match[str]) -> Any:
    spec = model_pb2.ModelSpec(name=urllib.parse.unquote(match["name"]))
    if match["version"] is not None:
        if len(match["version"]) > 19 or int(match["version"]) > _MOST_VERSION:
            raise invalid(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    if match["label"] is not None:
        spec.version_label = urllib.parse.unquote(match["label"])
    return spec


def _as_dict(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
