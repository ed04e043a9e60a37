"""The client by gRPC: when it tries again, and what it makes of the responses."""

import concurrent.futures
import contextlib
import socket
import socketserver
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2  # has no public name
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.client import EmbeddingClient, EndpointError, RequestError, UnavailableError


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Gives the n-th request with the n-th outcome, and all further ones with the last."""

    def __init__(self, outcomes):
        self.outcomes, self.requests = outcomes, []

    def Predict(self, request, context):  # noqa: N802  the service's name
        """A gRPC code, or the embedding as an array."""
        outcome = self.outcomes[min(len(self.requests), len(self.outcomes) - 1)]
        self.requests.append((request, dict(context.invocation_metadata())))
        if isinstance(outcome, grpc.StatusCode):
            context.abort(outcome, "said so")
        response = predict_pb2.PredictResponse()
        response.outputs["embedding"].CopyFrom(outcome)
        return response


@contextlib.contextmanager
def serving(*outcomes):
    """The address of a server with these outcomes, and the service."""
    # No response has a size limit; requests have gRPC's own.
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(2), options=[("grpc.max_send_message_length", -1)]
    )
    service = Service(outcomes)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}", service
    finally:
        server.stop(0).wait()


class Link(socketserver.BaseRequestHandler):
    """A connection whose first byte takes so long as from another continent."""

    def handle(self):
        """Hand on what comes, both ways."""
        threading.Event().wait(0.5)
        with socket.create_connection(self.server.far) as far:
            back = threading.Thread(target=self._hand_on, args=(far, self.request))
            back.start()
            self._hand_on(self.request, far)
            back.join()

    def _hand_on(self, source, target):
        with contextlib.suppress(OSError):
            while content := source.recv(2**16):
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)


EMBEDDING = tf.make_tensor_proto(np.array([[0.5, -2]], np.float32))


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_overload_is_retried(code, pauses):
    """With the same request, version and headers, after pauses that grow."""
    with serving(grpc.StatusCode[code], grpc.StatusCode[code], EMBEDDING) as (url, service):
        with EmbeddingClient(url, "name", version=3, headers={"Authorization": "x"}) as client:
            np.testing.assert_array_equal(client.embed([b"a"], "low"), [[0.5, -2]])
        assert len(service.requests) == 3
        for request, headers in service.requests:
            spec = request.model_spec
            assert (spec.name, spec.version.value, spec.signature_name) == ("name", 3, "low")
            assert tf.make_ndarray(request.inputs["images"]).tolist() == [b"a"]
            assert headers["authorization"] == "x"
    assert pauses == [0.2, 0.4]


@pytest.mark.parametrize(("code", "kind"), [
    ("INVALID_ARGUMENT", RequestError), ("NOT_FOUND", RequestError), ("INTERNAL", EndpointError),
])  # fmt: skip
def test_other_codes_are_errors_at_once(code, kind):
    """With the endpoint's words, its address and the code."""
    with serving(grpc.StatusCode[code]) as (url, service):
        with EmbeddingClient(url) as client, pytest.raises(EndpointError) as failed:
            client.embed([b"a"])
        assert len(service.requests) == 1
    assert type(failed.value) is kind
    assert str(failed.value) == f"{url}: said so (status {code})"


def test_an_endpoint_that_is_not_there(pauses):
    """It is named."""
    with serving(EMBEDDING) as (url, _):
        pass
    with EmbeddingClient(url, attempts=4) as client, pytest.raises(UnavailableError) as failed:
        client.embed([b"a"])
    assert failed.value.status == "UNAVAILABLE"
    assert str(failed.value).startswith(url)
    assert len(pauses) == 3


def test_a_slow_link_is_waited_for():
    """Half a second until the server's first byte is no failed attempt."""
    with serving(EMBEDDING) as (url, _), socketserver.ThreadingTCPServer(("127.0.0.1", 0), Link) as link:
        link.far = ("127.0.0.1", int(url.rpartition(":")[2]))
        accepting = threading.Thread(target=link.serve_forever)
        accepting.start()
        try:
            with EmbeddingClient(f"grpc://127.0.0.1:{link.server_address[1]}", attempts=1) as client:
                np.testing.assert_array_equal(client.embed([b"a"]), [[0.5, -2]])
        finally:
            link.shutdown()
            accepting.join()


def test_a_message_that_is_too_long_is_rejected(pauses):
    """GRPC calls it RESOURCE_EXHAUSTED, as overload, but no later attempt can succeed."""
    with serving(EMBEDDING) as (url, service):
        with EmbeddingClient(url) as client, pytest.raises(RequestError, match="larger than max"):
            client.embed([bytes(2**23)])
        assert service.requests == []
    assert pauses == []


def test_responses_may_exceed_4_mb():
    """The limit at which gRPC stops by itself does not stop it."""
    values = np.random.default_rng(0).normal(size=[1, 2**21]).astype(np.float32)
    with serving(tf.make_tensor_proto(values)) as (url, _), EmbeddingClient(url) as client:
        np.testing.assert_array_equal(client.embed([b"a"]), values)


def test_both_forms_of_a_tensor_are_read():
    """A value a field, one value for all that are equal, and packed content."""
    for message in [
        tensor_pb2.TensorProto(dtype=1, float_val=[1, 2], tensor_shape=tf.TensorShape([1, 2]).as_proto()),
        tensor_pb2.TensorProto(dtype=1, float_val=[1], tensor_shape=tf.TensorShape([1, 2]).as_proto()),
        tf.make_tensor_proto(np.array([[1, 2]], np.float32)),
    ]:
        with serving(message) as (url, _), EmbeddingClient(url) as client:
            np.testing.assert_array_equal(client.embed([b"a"]), tf.make_ndarray(message))


@pytest.mark.parametrize(("tensor", "message"), [
    (tf.make_tensor_proto(np.zeros([2, 3], np.float32)), "must have 1 rows"),
    (tensor_pb2.TensorProto(dtype=99), "must be whole"),
    (tf.make_tensor_proto([["a"]]), "embedding must hold numbers"),
    (tensor_pb2.TensorProto(dtype=1, tensor_content=bytes(8), tensor_shape=tf.TensorShape([1, 3]).as_proto()),
     "must be whole"),
])  # fmt: skip
def test_a_malformed_response_is_an_error(tensor, message):
    """With the endpoint's address, and it is not sent again."""
    with serving(tensor) as (url, service):
        with EmbeddingClient(url) as client, pytest.raises(EndpointError, match=message) as failed:
            client.embed([b"a"])
        assert len(service.requests) == 1
    assert str(failed.value).startswith(url)
