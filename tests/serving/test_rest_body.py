"""The development server's reading of HTTP: bodies however they are sent, and what is rejected."""

import contextlib
import gzip
import json
import re
import socket
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2  # has no public name

from serving.development.access_log import AccessLog
from serving.development.rest import RestServer

PATH = b"/v1/models/m:predict"
MAX_BYTES = 10_000
BODY = json.dumps({"instances": ["a", "bcd"]}).encode()
RESPONSE = b'{"predictions": [[1.0], [3.0]]}'
LOGGED = []


class Lengths:
    """A model whose outputs are its strings' lengths."""

    def servable(self, _):
        """The only version is the model itself."""
        return self

    def signature(self, _):
        """The only signature."""
        info = meta_graph_pb2.TensorInfo(dtype=tf.string.as_datatype_enum)
        return types.SimpleNamespace(inputs={"images": info})

    def run(self, _, inputs):
        """[B, 1]."""
        return {"embedding": np.array([[len(value)] for value in inputs["images"]], np.float32)}


@pytest.fixture(scope="module")
def address():
    """Where the server listens."""
    server = RestServer(("127.0.0.1", 0), Lengths(), MAX_BYTES, AccessLog(LOGGED.append, is_whole=False))
    server.start()
    yield server.server_address
    server.stop()


def exchange(address, *parts):
    """Send these bytes and no more: all that comes back until the connection ends."""
    with socket.create_connection(address, timeout=20) as connection:
        with contextlib.suppress(ConnectionError):  # what is rejected need not be read
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(2**16):
            received += chunk
    return received


def post(*headers):
    """A request's head."""
    return b"\r\n".join([b"POST " + PATH + b" HTTP/1.1", b"Host: here", *headers, b"", b""])


def chunk(content):
    """A body's chunk."""
    return b"%x\r\n%b\r\n" % (len(content), content)


CHUNKED = post(b"Transfer-Encoding: chunked")
LENGTH = post(b"Content-Length: %d" % len(BODY))


@pytest.mark.parametrize("parts", [
    [LENGTH, BODY],
    [CHUNKED, chunk(BODY), b"0\r\n\r\n"],
    [CHUNKED, chunk(BODY[:1]), chunk(BODY[1:9]), chunk(BODY[9:]), b"0\r\nTrailer: x\r\n\r\n"],
    [CHUNKED, b"%X;name=value\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)],
])  # fmt: skip
def test_a_body_is_read_however_it_is_sent(address, parts):
    """With its length or in chunks; the next request on the connection too."""
    received = exchange(address, *parts, *parts)
    assert received.count(b"HTTP/1.1 200") == received.count(RESPONSE) == 2


@pytest.mark.parametrize(("content", "status"), [
    (gzip.compress(BODY, mtime=0), 200), (b"abc", 400), (gzip.compress(bytes(MAX_BYTES + 1), mtime=0), 413),
])  # fmt: skip
def test_a_zipped_body_is_unzipped(address, content, status):
    """Up to the limit, whatever its length in gzip."""
    head = post(b"Content-Encoding: gzip", b"Content-Length: %d" % len(content))
    assert exchange(address, head, content).startswith(b"HTTP/1.1 %d " % status)


def test_a_refused_request_is_a_line(address):
    """With who, what, the status, how long and why; nothing in it moves a terminal's cursor."""
    exchange(address, LENGTH, BODY)
    before = len(LOGGED)
    exchange(address, LENGTH, BODY)
    assert len(LOGGED) == before
    exchange(address, post(b"Content-Length: 12"), b'{"in":"\x1b[2J"}'[:12])
    exchange(address, b"GET /v1/\x1b[2J HTTP/1.1\r\nHost: here\r\n\r\n")
    body, path = LOGGED[before:]
    assert re.fullmatch(r"127\.0\.0\.1 REST POST /v1/models/m:predict 400 \d+ ms: JSON Parse error: .*", body)
    assert r"GET /v1/\x1b[2J 400" in path
    assert all(line.isprintable() for line in LOGGED)


@pytest.mark.parametrize(("parts", "status", "message"), [
    ([post()], 411, "must have a Content-Length"),
    ([post(b"Content-Length: " + b"9" * 5000)], 400, "at most 18 digits"),
    ([post(b"Content-Length: 10001")], 413, "at most 10000 bytes"),
    ([post(b"Content-Length: -5")], 400, "must be a number of at most 18 digits; got '-5'"),
    ([post(b"Content-Length: 3", b"Transfer-Encoding: chunked"), b"0\r\n\r\n"], 400, "without a Content"),
    ([post(b"Transfer-Encoding: gzip, chunked"), b"0\r\n\r\n"], 400, "must be chunked"),
    ([CHUNKED, b"no length\r\n"], 400, "must begin with its length; got b'no length"),
    ([CHUNKED, b"3\r\nabcdef\r\n0\r\n\r\n"], 400, "as long as its first line says"),
    ([CHUNKED, chunk(bytes(6000)), chunk(bytes(6000)), b"0\r\n\r\n"], 413, "at most 10000 bytes"),
    ([CHUNKED, b"f" * 15 + b"\r\n"], 413, "at most 10000 bytes"),
])  # fmt: skip
def test_a_body_that_is_rejected_ends_the_connection(address, parts, status, message):
    """With one response that says why: what is left of it must not be taken for a request."""
    received = exchange(address, *parts, LENGTH, BODY)
    assert received.count(b"HTTP/1.1 ") == 1, received
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close" in head
    assert message in json.loads(body)["error"]


@pytest.mark.parametrize("parts", [[post(b"Content-Length: 5"), b"abc"], [CHUNKED, b"5\r\nabc"]])
def test_a_body_that_breaks_off_is_an_error(address, parts):
    """With what came of it."""
    received = exchange(address, *parts)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"the body must have 5 bytes more; 3 came" in received


def test_values_nested_too_deep_are_rejected(address):
    """Whether Python's stack ends in reading, or in showing what was read."""
    for depth in [9, *range(860, 1020, 4), 4000]:
        nested = b"[" * depth + b"]" * depth
        for body in (nested, b'{"instances": [1, {"x": %b}]}' % nested, b'{"inputs": %b}' % nested):
            received = exchange(address, post(b"Content-Length: %d" % len(body)), body)
            assert received.startswith(b"HTTP/1.1 400 "), received
