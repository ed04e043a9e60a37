"""Why a request fails, in TensorFlow Serving's terms."""

from __future__ import annotations

from http import HTTPStatus

import tensorflow as tf

INVALID_ARGUMENT: int = tf.errors.INVALID_ARGUMENT
NOT_FOUND: int = tf.errors.NOT_FOUND
FAILED_PRECONDITION: int = tf.errors.FAILED_PRECONDITION
INTERNAL: int = tf.errors.INTERNAL

# The statuses of `tensorflow_model_server` by REST; a code that is not here is a 500.
_HTTP = {
    tf.errors.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    tf.errors.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    tf.errors.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    tf.errors.NOT_FOUND: HTTPStatus.NOT_FOUND,
    tf.errors.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    tf.errors.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    tf.errors.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    tf.errors.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}


class StatusError(Exception):
    """A request that fails.

    Args:
        code: one of TensorFlow's error codes, which are gRPC's too.
        message: what must hold, and what was received.
        http_status: by REST, where HTTP has a closer one than the code's.
    """

    def __init__(self, code: int, message: str, http_status: HTTPStatus | None = None) -> None:
        # It is sent as UTF-8: what can't be encoded, such as half a surrogate pair in a name, is escaped.
        message = message.encode("utf-8", "backslashreplace").decode("utf-8")
        super().__init__(message)
        self.code, self.message = code, message
        self.http_status = int(http_status or _HTTP.get(code, HTTPStatus.INTERNAL_SERVER_ERROR))

    @classmethod
    def of(cls, error: tf.errors.OpError) -> StatusError:
        """TensorFlow's error of a run of the graph, without the Python stack of the graph's making."""
        message = str(error.message).split("\n\nOriginal stack trace")[0]
        return cls(error.error_code, message.removeprefix("Graph execution error:").strip())


def invalid(message: str) -> StatusError:
    """A request that is not as it must be."""
    return StatusError(INVALID_ARGUMENT, message)
