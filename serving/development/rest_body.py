"""The body of an HTTP request, with its length in a header or in chunks."""

from __future__ import annotations

import email.message
import io
import re
from http import HTTPStatus

from serving.development.errors import INVALID_ARGUMENT, StatusError, invalid

# More digits than any length here has; Python reads no more than 4,300.
_MAX_DIGITS = 18
# For a chunk's first line: its length in hexadecimal and extensions, which nobody sends.
_MAX_LINE_BYTES = 256
_MAX_TRAILERS = 100


def has_body(headers: email.message.Message) -> bool:
    """Whether bytes may follow the headers."""
    return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"


def read_body(headers: email.message.Message, stream: io.BufferedIOBase, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        StatusError: it is longer than `max_bytes`, compressed, or breaks off, or its length is not given.
    """
    coding = headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        message = f"a request's body must not be compressed; it is {coding}"
        raise StatusError(INVALID_ARGUMENT, message, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    transfer, length = headers.get("Transfer-Encoding"), headers.get("Content-Length")
    if transfer is not None:
        if transfer.lower() != "chunked" or length is not None:
            raise invalid(
                f"Transfer-Encoding must be chunked, without a Content-Length; got {transfer}, {length}"
            )
        return _read_chunks(stream, max_bytes)
    if length is None:
        message = "the request must have a Content-Length"
        raise StatusError(INVALID_ARGUMENT, message, HTTPStatus.LENGTH_REQUIRED)
    if not (length.isascii() and length.isdigit()):
        raise invalid(f"Content-Length must be a number; got {length[:_MAX_DIGITS]!r}")
    if len(length) > _MAX_DIGITS or int(length) > max_bytes:
        raise _too_long(max_bytes)
    return _read(stream, int(length))


def _read_chunks(stream: io.BufferedIOBase, max_bytes: int) -> bytes:
    """Chunks, each after its length, until one of length 0; then trailers, which are passed over."""
    chunks: list[bytes] = []
    left = max_bytes
    while size := _chunk_size(stream):
        if size > left:
            raise _too_long(max_bytes)
        left -= size
        chunks.append(_read(stream, size))
        if stream.readline(_MAX_LINE_BYTES).strip():
            raise invalid("a chunk must be as long as its first line says")
    for _ in range(_MAX_TRAILERS):
        if not stream.readline(_MAX_LINE_BYTES).strip():
            return b"".join(chunks)
    raise invalid(f"there must be at most {_MAX_TRAILERS} trailers")


def _chunk_size(stream: io.BufferedIOBase) -> int:
    line = stream.readline(_MAX_LINE_BYTES)
    length = re.fullmatch(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?\r?\n", line)
    if length is None:
        raise invalid(f"a chunk must begin with its length; got {line[:_MAX_DIGITS]!r}")
    return int(length[1], 16)


def _read(stream: io.BufferedIOBase, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise invalid(f"the body must have {size} bytes more; {len(content)} came")
    return content


def _too_long(max_bytes: int) -> StatusError:
    message = f"a request's body must have at most {max_bytes} bytes; this one is longer"
    return StatusError(INVALID_ARGUMENT, message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
