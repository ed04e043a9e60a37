"""The body of an HTTP request, with its length told beforehand or in chunks."""

from __future__ import annotations

import email.message
import io
import re
from http import HTTPStatus

# More digits than any length here has; Python reads no more than 4,300.
_MOST_DIGITS = 18
# What a chunk's first line may hold: its length in hexadecimal and what nobody sends behind it.
_MOST_LINE_BYTES = 256
_MOST_TRAILERS = 100


class BodyRefusedError(Exception):
    """A body that is not read, or not to its end; HTTP has statuses for it that TensorFlow's codes lack."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status, self.message = int(status), message


def has_body(headers: email.message.Message) -> bool:
    """Whether bytes may follow the headers."""
    return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"


def read_body(headers: email.message.Message, stream: io.BufferedIOBase, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        BodyRefusedError: it is longer than `max_bytes`, compressed, or breaks off, or its length is not told.
    """
    coding = headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        raise BodyRefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"a request's body must not be compressed; it is {coding}"
        )
    transfer, length = headers.get("Transfer-Encoding"), headers.get("Content-Length")
    if transfer is not None:
        if transfer.lower() != "chunked" or length is not None:
            raise BodyRefusedError(
                HTTPStatus.BAD_REQUEST,
                f"Transfer-Encoding must be chunked, without a Content-Length; got {transfer}, {length}",
            )
        return _read_chunks(stream, max_bytes)
    if length is None:
        raise BodyRefusedError(HTTPStatus.LENGTH_REQUIRED, "the request must tell its Content-Length")
    if not (length.isascii() and length.isdigit()):
        raise BodyRefusedError(
            HTTPStatus.BAD_REQUEST, f"Content-Length must be a number; got {length[:_MOST_DIGITS]!r}"
        )
    if len(length) > _MOST_DIGITS or int(length) > max_bytes:
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
        if stream.readline(_MOST_LINE_BYTES).strip():
            raise BodyRefusedError(HTTPStatus.BAD_REQUEST, "a chunk must be as long as it tells")
    for _ in range(_MOST_TRAILERS):
        if not stream.readline(_MOST_LINE_BYTES).strip():
            return b"".join(chunks)
    raise BodyRefusedError(HTTPStatus.BAD_REQUEST, f"there must be at most {_MOST_TRAILERS} trailers")


def _chunk_size(stream: io.BufferedIOBase) -> int:
    line = stream.readline(_MOST_LINE_BYTES)
    told = re.fullmatch(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?\r?\n", line)
    if told is None:
        raise BodyRefusedError(
            HTTPStatus.BAD_REQUEST, f"a chunk must begin with its length; got {line[:_MOST_DIGITS]!r}"
        )
    return int(told[1], 16)


def _read(stream: io.BufferedIOBase, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise BodyRefusedError(
            HTTPStatus.BAD_REQUEST, f"the body must have {size} bytes more; {len(content)} came"
        )
    return content


def _too_long(max_bytes: int) -> BodyRefusedError:
    return BodyRefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"a request's body must have at most {max_bytes} bytes; this one is longer",
    )
