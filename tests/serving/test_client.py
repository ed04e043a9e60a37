"""The client by REST: what it sends, what it makes of the responses, and when it tries again."""

import base64
import itertools
import json
import random
import socket
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest

from serving import client as client_module
from serving.client import (
    DeadlineError,
    EmbeddingClient,
    EndpointError,
    PictureError,
    RequestError,
    UnavailableError,
)
from tests.conftest import ROOT
from tests.serving.scripted import (
    break_off,
    document,
    embedding_of,
    embeddings,
    half,
    hang,
    scripted,
    trickle,
)

PAGE = b"<html><body>Bad gateway</body></html>"


def wanted_of(pictures):
    """The scripted embeddings of these."""
    return np.array([embedding_of(base64.b64encode(picture).decode()) for picture in pictures], np.float32)


def test_batches_keep_their_order():
    """At most `batch_size` pictures and `batch_bytes` bytes a request; responses in the pictures' order."""
    pictures = [bytes([number]) * (number + 1) for number in range(20)]
    with scripted(embeddings) as server:
        with EmbeddingClient(server.url, batch_size=4, batch_bytes=40, concurrency=3) as client:
            response = client.embed(iter(pictures))
        np.testing.assert_array_equal(response, wanted_of(pictures))
        assert response.dtype == np.float32
        batches = [
            [base64.b64decode(picture["b64"]) for picture in document["inputs"]["images"]]
            for _, _, document in server.requests
        ]
    assert sorted(itertools.chain.from_iterable(batches)) == sorted(pictures)
    assert sorted(len(batch) for batch in batches) == [2, 2, 2, 3, 3, 4, 4]  # 4 pictures or 40 bytes


def test_a_picture_above_the_batch_s_bytes_is_sent_alone():
    """In its place."""
    pictures = [b"a", b"bc", b"longer than the batch", b"d", b"e"]
    with scripted(embeddings) as server:
        with EmbeddingClient(server.url, batch_bytes=4, concurrency=1) as client:
            np.testing.assert_array_equal(client.embed(pictures), wanted_of(pictures))
        counts = [len(document["inputs"]["images"]) for _, _, document in server.requests]
    assert counts == [2, 1, 2]


def test_no_more_than_concurrency_requests_are_under_way():
    """Nor are more pictures drawn from a generator than those requests hold."""
    together, most, lock = threading.Barrier(3, timeout=30), [0, 0], threading.Lock()

    def response(handler, request):
        with lock:
            most[0] += 1
            most[1] = max(most)
        together.wait()  # breaks, and fails the test, unless three arrive
        with lock:
            most[0] -= 1
        embeddings(handler, request)

    drawn = []

    def pictures():
        for number in range(12):
            drawn.append(number)
            assert len(drawn) <= 3 + 1 + len(server.requests)  # one shows that the batch before is full
            yield bytes([number + 1])

    with scripted(response) as server, EmbeddingClient(server.url, batch_size=1, concurrency=3) as client:
        assert len(client.embed(pictures())) == 12
    assert most[1] == 3


def test_what_is_sent():
    """Name, version, signature and headers are where TensorFlow Serving looks for them."""
    with scripted(embeddings) as server:
        options = {"version": 7, "headers": {"Authorization": "Bearer x"}}
        with EmbeddingClient(f"{server.url}/behind/", "my model", **options) as client:
            client.embed([b"picture"], "low")
        (path, headers, body), = server.requests  # fmt: skip
    assert path == "/behind/v1/models/my%20model/versions/7:predict"
    assert headers["Authorization"] == "Bearer x"
    assert headers["Content-Type"] == "application/json"
    assert body == {"signature_name": "low", "inputs": {"images": [{"b64": "cGljdHVyZQ=="}]}}


def test_pixels_are_sent_as_numbers():
    """In batches within the bytes that a request may have."""
    pixels = np.arange(5 * 2 * 3 * 3, dtype=np.uint8).reshape(5, 2, 3, 3)

    def response(handler, request):
        firsts = [[picture[0][0][0], 0] for picture in request["inputs"]["pixels"]]
        document(200, {"outputs": firsts})(handler, request)

    with scripted(response) as server:
        with EmbeddingClient(server.url, batch_bytes=40) as client:
            np.testing.assert_array_equal(client.embed_pixels(pixels)[:, 0], pixels[:, 0, 0, 0])
        assert sorted(len(body["inputs"]["pixels"]) for _, _, body in server.requests) == [1, 2, 2]
        assert {body["signature_name"] for _, _, body in server.requests} == {"pixels"}


def test_search_gives_arrays():
    """Each of its own dtype; names that are not UTF-8 as Python's own file names."""
    outputs = {
        "ids": [[4, 2]],
        "labels": [[1, 0]],
        "distances": [[0, 0.5]],
        "paths": [["a", "n\xff"]],
        "class_names": [["ß", "c"]],
    }
    body = json.dumps({"outputs": outputs}, ensure_ascii=False).encode().replace("\xff".encode(), b"\xff")
    with scripted(document(200, body)) as server, EmbeddingClient(server.url) as client:
        found = client.search([b"x"])
    assert [found.ids.dtype, found.labels.dtype, found.distances.dtype] == [np.int64, np.int64, np.float32]
    assert found.paths.tolist() == [["a", "n\udcff"]]
    assert found.class_names.tolist() == [["ß", "c"]]


@pytest.mark.parametrize("failure", [
    document(429, {"error": "busy"}), document(503, {"error": "later"}), document(504, {"error": "late"}),
    document(408, PAGE), document(502, PAGE), break_off, half,
])  # fmt: skip
def test_what_may_later_succeed_is_retried(failure, pauses):
    """With the same request, after pauses that grow up to five seconds, as long as the deadline allows."""
    with scripted(*[failure] * 8, embeddings) as server:
        with EmbeddingClient(server.url, deadline_s=120) as client:
            np.testing.assert_array_equal(client.embed([b"a"]), wanted_of([b"a"]))
        first, *others = server.requests
    assert len(others) == 8
    assert all(other[2] == first[2] for other in others)
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]


@pytest.mark.parametrize(("value", "least", "most"), [
    ("7", 7, 7), ("Fri, 01 Jan 2100 00:00:00 GMT", 10**8, 10**10), ("soon", 0, 0), ("-3", 0, 0), ("", 0, 0),
])  # fmt: skip
def test_retry_after_is_honoured(value, least, most, pauses):
    """A number of seconds or a date, before the pause; a client whose deadline is sooner gives up at once."""
    with scripted(document(429, {"error": "busy"}, Retry_After=value), embeddings) as server:
        with EmbeddingClient(server.url, deadline_s=5e9) as client:
            client.embed([b"a"])
        assert least <= pauses[0] - 0.2 <= most
    if least:
        with scripted(document(503, {"error": "busy"}, Retry_After=value)) as server:
            with EmbeddingClient(server.url, deadline_s=5) as client, pytest.raises(UnavailableError):
                client.embed([b"a"])
            assert len(server.requests) == 1


def test_without_a_deadline_a_request_is_given_up_in_the_end(pauses, monkeypatch):
    """Two minutes after it first failed: the pauses alone add up to that."""
    clock = types.SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pauses.append)
    monkeypatch.setattr(client_module, "time", clock)
    with (
        scripted(document(429, {"error": "busy"})) as server,
        EmbeddingClient(server.url) as client,
        pytest.raises(UnavailableError, match="busy"),
    ):
        client.embed([b"a"])
    assert 110 < sum(pauses) < 120


def test_a_call_of_several_requests_pins_its_version():
    """It asks for the number first, with the label where one was given; a single request needs none."""
    with scripted(embeddings, version=7) as server:
        for options, count, prefix in [
            ({}, 3, "/versions/7"), ({}, 1, ""),
            ({"version": 4}, 3, "/versions/4"), ({"version": "new"}, 3, "/versions/7"),
            ({"version": "a/b"}, 1, "/labels/a%2Fb"),
        ]:  # fmt: skip
            del server.requests[:]
            with EmbeddingClient(server.url, batch_size=1, **options) as client:
                client.embed([b"a"] * count)
            assert {path for path, _, _ in server.requests} == {f"/v1/models/rll_tf{prefix}:predict"}
        with EmbeddingClient(server.url) as client:
            assert client.current_version() == 7


def test_it_gives_up_after_the_attempts(pauses):
    """With the endpoint's own words, its address and the status."""
    with scripted(document(503, {"error": "the queue is full"})) as server:
        with (
            EmbeddingClient(server.url, attempts=3) as client,
            pytest.raises(UnavailableError, match="the queue is full") as failed,
        ):
            client.embed([b"a"])
        assert len(server.requests) == 3
    assert failed.value.status == 503
    assert str(failed.value).startswith(server.url)
    assert len(pauses) == 2


def test_an_endpoint_that_is_not_there(pauses):
    """It is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody can connect
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with EmbeddingClient(url, attempts=3) as client:
            with pytest.raises(UnavailableError, match="can't be reached") as failed:
                client.embed([b"a"])
            assert not client.is_ready()
    assert str(failed.value).startswith(url)
    assert len(pauses) == 2 + 2


@pytest.mark.parametrize(("status", "kind"), [
    (400, RequestError), (404, RequestError), (413, RequestError), (500, EndpointError), (501, EndpointError),
])  # fmt: skip
def test_what_is_rejected_is_not_retried(status, kind):
    """The error has the endpoint's words, its address and the status."""
    with scripted(document(status, {"error": "no, since"})) as server:
        with EmbeddingClient(server.url) as client, pytest.raises(EndpointError, match="no, since") as failed:
            client.embed([b"a"])
        assert len(server.requests) == 1
    assert type(failed.value) is kind
    assert (failed.value.status, failed.value.message) == (status, "no, since")
    assert str(failed.value) == f"{server.url}: no, since (status {status})"


@pytest.mark.parametrize("options", [
    {"deadline_s": 0.2}, {"attempt_deadline_s": 0.2, "attempts": 1},
    {"deadline_s": 0.2, "attempt_deadline_s": 30},
])  # fmt: skip
@pytest.mark.parametrize("slow", [hang, trickle])
def test_a_deadline_ends_a_call(slow, options, pauses):
    """Whether no response comes or one that never ends."""
    with scripted(slow) as server:
        with EmbeddingClient(server.url, **options) as client:
            with pytest.raises(DeadlineError, match=r"no (whole )?response within 0\.\d+ s") as failed:
                client.embed([b"a"])
            assert isinstance(failed.value, TimeoutError)
            assert str(failed.value).startswith(server.url)
            with pytest.raises(DeadlineError):
                client.status()
        assert len(server.requests) == 2
    assert pauses == []


def test_an_attempt_that_takes_too_long_is_made_again(pauses):
    """Within the call's deadline, after a pause: another server may respond."""
    with scripted(hang, embeddings) as server:
        with EmbeddingClient(server.url, attempt_deadline_s=0.2, deadline_s=60) as client:
            np.testing.assert_array_equal(client.embed([b"a"]), wanted_of([b"a"]))
        assert len(server.requests) == 2
    assert pauses == [0.2]


def test_a_retry_that_would_come_after_the_deadline_is_not_made(monkeypatch):
    """The error comes at once."""
    monkeypatch.setattr(random, "uniform", lambda *_: 100.0)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    with scripted(document(503, {"error": "later"})) as server:
        with (
            EmbeddingClient(server.url, deadline_s=60) as client,
            pytest.raises(UnavailableError, match="later"),
        ):
            client.embed([b"a"])
        assert len(server.requests) == 1


@pytest.mark.parametrize(("response", "message"), [
    (document(200, PAGE), "must be JSON; got '<html>"),
    (document(200, b'{"outputs": [[1, 2'), "must be JSON"),
    (document(200, b""), "must be JSON"),
    (document(302, PAGE, Location="/elsewhere"), r"must be JSON.*status 302"),
    (document(200, b"null"), "must be JSON"),
    (document(200, [1]), "must hold 'outputs'"),
    (document(200, {"predictions": [[1.0]]}), "must hold 'outputs'"),
    (document(200, {"outputs": [[1.0], [2.0]]}), r"must have 1 rows, one per picture; its shape is \[2, 1\]"),
    (document(200, {"outputs": []}), "must have 1 rows"),
    (document(200, {"outputs": 3}), "must have 1 rows"),
    (document(200, {"outputs": [[1.0, [2.0]]]}), "equally long"),
    (document(200, {"outputs": [["a"]]}), "embedding must hold numbers"),
    (document(200, {"outputs": [[None]]}), "embedding must hold numbers"),
    (document(200, {"outputs": {"other": [[1.0]]}}), "embedding is missing"),
])  # fmt: skip
def test_a_malformed_response_is_an_error(response, message):
    """With the endpoint's address, and it is not sent again."""
    with scripted(response) as server:
        with EmbeddingClient(server.url) as client, pytest.raises(EndpointError, match=message) as failed:
            client.embed([b"a"])
        assert len(server.requests) == 1
    assert type(failed.value) is EndpointError
    assert str(failed.value).startswith(server.url)


@pytest.mark.parametrize("content", [{}, [], {"model_version_status": [{}]}, {"metadata": 3}])
def test_a_malformed_status_is_an_error(content):
    """Another service may listen there."""
    with scripted(document(200, content), version=None) as server, EmbeddingClient(server.url) as client:
        with pytest.raises(EndpointError, match="no status of a model"):
            client.status()
        with pytest.raises(EndpointError, match="no metadata of a model"):
            client.metadata()
        assert not client.is_ready()


def test_malformed_search_results_are_an_error():
    """An output that is missing, and one of another kind."""
    outputs = {name: [[1]] for name in ("ids", "labels", "distances")}
    named = {"paths": [[1]], "class_names": [["a"]]}
    with (
        scripted(document(200, {"outputs": outputs}), document(200, {"outputs": outputs | named})) as server,
        EmbeddingClient(server.url) as client,
    ):
        with pytest.raises(EndpointError, match="paths, class_names is missing"):
            client.search([b"a"])
        with pytest.raises(EndpointError, match="paths must hold strings"):
            client.search([b"a"])


def test_a_rejected_picture_has_its_index_in_the_call():
    """Whichever request it went in; beyond a request's pictures it is another client's."""

    def reject(handler, request):
        (first, *_) = request["inputs"]["images"]
        index = {b"c": 1, b"e": 2}.get(base64.b64decode(first["b64"]))
        if index is None:
            embeddings(handler, request)
            return
        message = f"assertion failed: [images[{index}] must be a picture]\n\t [[{{{{node x}}}}]]"
        document(400, {"error": message})(handler, request)

    with scripted(reject) as server, EmbeddingClient(server.url, batch_size=2) as client:
        for pictures, wanted in (([b"a", b"b", b"c", b"d"], 3), ([b"a", b"b", b"e", b"f"], None)):
            with pytest.raises(RequestError) as rejected:
                client.embed(pictures)
            assert (rejected.value.index, rejected.value.reason) == (wanted, "must be a picture")


def test_overload_loses_no_picture(pauses):
    """A server that takes two requests at a time and has 429 for the others: each picture once, in order."""
    slots, refused = threading.Semaphore(2), []

    def response(handler, request):
        if not slots.acquire(blocking=False):
            refused.append(request)
            document(429, {"error": "the queue is full"})(handler, request)
            return
        try:
            if len(refused) < 50:  # it is not done before others have come
                handler.server.ended.wait(0.01)
            embeddings(handler, request)
        finally:
            slots.release()

    pictures = [bytes([number + 1]) * (number + 1) for number in range(200)]
    with scripted(response) as server, EmbeddingClient(server.url, batch_size=1, concurrency=16) as client:
        np.testing.assert_array_equal(client.embed(pictures), wanted_of(pictures))
    assert len(refused) >= 50
    assert pauses


def test_the_first_failure_ends_a_call():
    """No further batch is sent."""
    with scripted(document(400, {"error": "no"})) as server:
        with EmbeddingClient(server.url, batch_size=1, concurrency=2) as client, pytest.raises(RequestError):
            client.embed([b"a"] * 50)
        assert len(server.requests) <= 4


def test_arguments_are_checked(monkeypatch):
    """Before anything is sent."""
    for options, message in [
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"batch_bytes": 0}, "batch_bytes"),
        ({"concurrency": 0}, "concurrency"),
        ({"attempts": 0}, "attempts"),
        ({"deadline_s": 0}, "deadline_s must be above 0; got 0"),
        ({"attempt_deadline_s": -1.0}, "attempt_deadline_s"),
        ({"model_name": "a/b"}, "model_name"),
    ]:
        with pytest.raises(ValueError, match=message):
            EmbeddingClient("http://localhost:1", **options)
    for url in ("localhost:8501", "ftp://localhost", "http://", ""):
        with pytest.raises(ValueError, match="an endpoint must be http://HOST:PORT or grpc://HOST:PORT"):
            EmbeddingClient(url)
    monkeypatch.setattr(client_module, "PICTURE_BYTES", 3)
    with EmbeddingClient("http://localhost:1") as client:
        with pytest.raises(ValueError, match="at least 1 picture"):
            client.embed([])
        with pytest.raises(PictureError, match="picture 1 must have at most 3 bytes; it has 4") as rejected:
            client.embed([b"abc", b"abcd"])
        assert (rejected.value.index, rejected.value.reason) == (1, "must have at most 3 bytes; it has 4")
        with pytest.raises(PictureError, match="picture 0 must have at least 1 byte; it has none"):
            client.embed([b""])
        with pytest.raises(TypeError, match="picture 0 must be bytes; got str"):
            client.embed(["a.png"])
        with pytest.raises(TypeError, match="got a single one"):
            client.embed(b"abc")
        with pytest.raises(ValueError, match="pixels must be"):
            client.embed_pixels(np.zeros([1, 2, 2, 3], np.float32))


def test_neither_tensorflow_nor_this_project_is_needed():
    """The file alone works where their import fails; gRPC says which extra it needs."""
    code = """
import importlib.util, sys
for name in ("tensorflow", "keras", "grpc", "tensorflow_serving", "serving", "rll_tf"):
    sys.modules[name] = None
spec = importlib.util.spec_from_file_location("client", sys.argv[1])
client = sys.modules["client"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(client)
with client.EmbeddingClient(sys.argv[2]) as endpoint:
    print(endpoint.embed([b"a", b"bc"]).tolist())
try:
    client.EmbeddingClient("grpc://localhost:1")
except ImportError as error:
    print(error)
"""
    with scripted(embeddings) as server:
        process = subprocess.run(
            [sys.executable, "-I", "-c", code, client_module.__file__, server.url],
            capture_output=True,
            text=True,
            check=False,
        )
    assert process.returncode == 0, process.stderr
    response, message = process.stdout.splitlines()
    assert json.loads(response) == wanted_of([b"a", b"bc"]).tolist()
    assert "pip install rll_tf[serving]" in message


def test_importing_the_client_imports_no_tensorflow():
    """From the package too."""
    code = (
        "import sys, serving.client; print([name for name in sys.modules if name in ('tensorflow', 'grpc')])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout == "[]\n"
