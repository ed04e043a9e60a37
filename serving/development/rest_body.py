"""The body of an HTTP request, with its length in a header or in chunks."""

from __future__ import annotations

import email.message
import io
import re
import zlib
from http import HTTPStatus

from serving.development.errors import INVALID_ARGUMENT, StatusError, invalid

# For a chunk's first line: its length in hexadecimal and extensions, which nobody sends.
_MAX_LINE_BYTES = 256


def has_body(headers: email.message.Message) -> bool:
    """Whether bytes may follow the headers."""
    return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"


def read_body(headers: email.message.Message, stream: io.BufferedIOBase, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        StatusError: it is longer than `max_bytes`, also unzipped, or breaks off, or its length is not given.
    """
    content = _read_whole(headers, stream, max_bytes)
    return _unzipped(content, max_bytes) if "gzip" in headers.get("Content-Encoding", "") else content


def _unzipped(content: bytes, max_bytes: int) -> bytes:
    expander = zlib.decompressobj(zlib.MAX_WBITS | 16)  # gzip's header
    try:
        expanded = expander.decompress(content, max_bytes)
    except zlib.error as error:
        raise invalid(f"the body must be whole gzip, as its Content-Encoding says: {error}") from error
    if expander.unconsumed_tail:
        raise _too_long(max_bytes)
    return expanded


def _read_whole(headers: email.message.Message, stream: io.BufferedIOBase, max_bytes: int) -> bytes:
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
    if not re.fullmatch(r"[0-9]{1,18}", length):
        raise invalid(f"Content-Length must be a number of at most 18 digits; got {length[:18]!r}")
    if int(length) > max_bytes:
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
    while stream.readline(_MAX_LINE_BYTES).strip():
        pass
    return b"".join(chunks)


def _chunk_size(stream: io.BufferedIOBase) -> int:
    line = stream.readline(_MAX_LINE_BYTES)
    length = re.fullmatch(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?\r?\n", line)
    if length is None:
        raise invalid(f"a chunk must begin with its length; got {line[:18]!r}")
    return int(length[1], 16)


def _read(stream: io.BufferedIOBase, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise invalid(f"the body must have {size} bytes more; {len(content)} came")
    return content


def _too_long(max_bytes: int) -> StatusError:
    message = f"a request's body must have at most {max_bytes} bytes; this one is longer"
    return StatusError(INVALID_ARGUMENT, message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
