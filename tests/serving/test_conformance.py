"""What any server of an exported model must do: the development server, or a real TensorFlow Serving.

Without further words the development server is started. Otherwise:

    RLL_SERVING_URL       the REST address, such as http://127.0.0.1:8501
    RLL_SERVING_GRPC      the gRPC address, such as grpc://127.0.0.1:8500; without it gRPC is left out
    RLL_SERVING_MODEL     the model's name [rll_tf]
    RLL_SERVING_ARTEFACT  the folder of versions that it serves, to compare with and, where it may be
                          written to, to add versions to; without it what needs the folder is left out
"""

import base64
import dataclasses
import io
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.artefact import Artefact
from serving.client import EmbeddingClient, RequestError
from serving.development import DevelopmentServer
from tests.conftest import rll

CALLERS, REQUESTS = 32, 2000
TOLERANCE = 1e-5
WAIT_S = 180
HTTP = urllib3.PoolManager(retries=False)


@dataclasses.dataclass
class Endpoint:
    """Where the tests ask."""

    url: str
    grpc_url: str | None
    model: str
    folder: Path | None

    def client(self, transport="rest", **options):
        """A client of it."""
        if transport == "grpc" and self.grpc_url is None:
            pytest.skip("RLL_SERVING_GRPC is unset")
        return EmbeddingClient(self.url if transport == "rest" else self.grpc_url, self.model, **options)

    def artefact(self):
        """What it serves, in this process."""
        if self.folder is None:
            pytest.skip("RLL_SERVING_ARTEFACT is unset")
        return Artefact(self.folder)

    def post(self, body, suffix=":predict"):
        """A predict request as it stands: status and parsed answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = HTTP.request("POST", f"{self.url}/v1/models/{self.model}{suffix}", body=content)
        return response.status, json.loads(response.data)

    def add_version(self, write):
        """Write a further version as `rll export` does: whole at once. Returns its number."""
        self.artefact()
        if not os.access(self.folder, os.W_OK):
            pytest.skip("RLL_SERVING_ARTEFACT can't be written to")
        number = 1 + max(int(entry.name) for entry in self.folder.iterdir() if entry.name.isdigit())
        partial = self.folder / f".partial-{number}"
        write(partial)
        partial.rename(self.folder / str(number))
        return number


@pytest.fixture(scope="module")
def endpoint(request, tmp_path_factory):
    """The server under test."""
    url = os.environ.get("RLL_SERVING_URL")
    if url:
        folder = os.environ.get("RLL_SERVING_ARTEFACT")
        name = os.environ.get("RLL_SERVING_MODEL", "rll_tf")
        yield Endpoint(url, os.environ.get("RLL_SERVING_GRPC"), name, folder and Path(folder))
        return
    exported, run_folder, pictures = map(request.getfixturevalue, ("exported", "run_folder", "pictures"))
    folder = tmp_path_factory.mktemp("served")
    gallery = tmp_path_factory.mktemp("gallery") / "gallery.npz"
    rll("embed", exported, "--data", f"folder:{pictures}", "--to", gallery)
    rll("export", run_folder, "--to", folder, "--gallery", gallery, "--top", 4)
    with DevelopmentServer(folder, poll_s=0.05) as server:
        yield Endpoint(server.url, server.grpc_url, "rll_tf", folder)


def encoded(pixels, form="PNG"):
    """A picture file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=form)
    return buffer.getvalue()


def draw_pictures(count, seed=0):
    """Pictures of nine random fields each, all different."""
    fields = np.random.default_rng(seed).integers(0, 256, [count, 3, 3, 3], np.uint8)
    return [encoded(np.kron(each, np.ones([6, 6, 1], np.uint8))) for each in fields]


PICTURES = draw_pictures(20)
GOOD = PICTURES[0]


def b64(content):
    """How bytes travel in JSON."""
    return {"b64": base64.b64encode(content).decode()}


def wait_for(condition):
    """Until it holds; a server that never gets there fails here."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "the server never got there"
        time.sleep(0.02)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
@pytest.mark.parametrize("level", [None, "low", "mid", "high"])
def test_embeddings_equal_the_artefact_in_this_process(endpoint, transport, level):
    """In several requests, in order, of the same width and type."""
    with endpoint.client(transport, batch_size=3) as client:
        answered = client.embed(PICTURES, level)
    wanted = endpoint.artefact().embed(PICTURES, level)
    assert answered.dtype == np.float32
    np.testing.assert_allclose(answered, wanted, atol=TOLERANCE)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_pixels_are_embedded_too(endpoint, transport):
    """Decoded pictures of one size give what their files give."""
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(picture))) for picture in PICTURES])
    with endpoint.client(transport, batch_size=8) as client:
        np.testing.assert_allclose(client.embed_pixels(pixels), client.embed(PICTURES), atol=TOLERANCE)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_search_equals_the_artefact_in_this_process(endpoint, transport):
    """Rows, labels, names and distances of the packed gallery."""
    with endpoint.client(transport, batch_size=8) as client:
        if "search" not in client.metadata():
            pytest.skip("the served model has no gallery")
        answered = client.search(PICTURES)
    wanted = endpoint.artefact().search(PICTURES)
    assert answered.ids.dtype == answered.labels.dtype == np.int64
    assert answered.distances.dtype == np.float32
    for name in ("ids", "labels", "paths", "class_names"):
        np.testing.assert_array_equal(getattr(answered, name), getattr(wanted, name))
    np.testing.assert_allclose(answered.distances, wanted.distances, atol=TOLERANCE)
    assert answered.paths[0, 0].endswith(".png")


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_metadata_and_status(endpoint, transport):
    """The signatures with their tensors; the version that answers."""
    with endpoint.client(transport) as client:
        signatures = client.metadata()
        states = client.status()
        assert client.is_ready()
    assert {"serving_default", "low", "mid", "high", "pixels"} <= set(signatures)
    (name, tensor), = signatures["serving_default"]["inputs"].items()  # fmt: skip
    assert (name, tensor["dtype"]) == ("images", "DT_STRING")
    assert tensor["tensor_shape"]["dim"][0]["size"] == "-1"
    assert "AVAILABLE" in [state for state, _ in states.values()]


def test_rows_and_columns(endpoint):
    """Both of TensorFlow Serving's formats, each plain and by name, answer in their own form."""
    with endpoint.client() as client:
        wanted = client.embed([GOOD, PICTURES[1]])
    values = [b64(GOOD), b64(PICTURES[1])]
    for body, key in [
        ({"instances": values}, "predictions"),
        ({"instances": [{"images": value} for value in values]}, "predictions"),
        ({"inputs": values}, "outputs"),
        ({"inputs": {"images": values}, "signature_name": "serving_default"}, "outputs"),
    ]:
        status, answer = endpoint.post(body)
        assert (status, list(answer)) == (200, [key]), answer
        np.testing.assert_allclose(answer[key], wanted, atol=TOLERANCE)
    if endpoint.post({"instances": values, "signature_name": "search"})[0] == 200:
        _, answer = endpoint.post({"instances": values, "signature_name": "search"})
        keys = {"ids", "labels", "distances", "paths", "class_names"}
        assert [set(row) for row in answer["predictions"]] == [keys, keys]


def test_curl_gets_the_embedding(endpoint, tmp_path):
    """The README's request, by a client that is none of ours."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    (tmp_path / "request.json").write_text(json.dumps({"instances": [b64(GOOD)]}))
    process = subprocess.run(
        ["curl", "-sS", "-d", f"@{tmp_path / 'request.json'}", f"{endpoint.url}/v1/models/{endpoint.model}:predict"],
        capture_output=True,
        check=True,
    )  # fmt: skip
    with endpoint.client() as client:
        wanted = client.embed([GOOD])
    np.testing.assert_allclose(json.loads(process.stdout)["predictions"], wanted, atol=TOLERANCE)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_picture_above_4_mb(endpoint, transport):
    """gRPC's own limit does not stop it."""
    noise = encoded(np.random.default_rng(0).integers(0, 256, [1300, 1300, 3], np.uint8))
    assert len(noise) > 2**22
    with endpoint.client(transport) as client:
        assert client.embed([noise, GOOD]).shape[0] == 2


def test_what_is_not_there_is_told(endpoint):
    """Other models, versions, signatures and paths."""
    status, answer = endpoint.post({"instances": [b64(GOOD)]}, "/versions/99999:predict")
    assert status == 404
    assert answer["error"]
    assert endpoint.post({"instances": [b64(GOOD)]}, ":ask")[0] == 400
    with pytest.raises(RequestError) as refused, EmbeddingClient(endpoint.url, "another") as client:
        client.embed([GOOD])
    assert refused.value.status == 404
    with pytest.raises(RequestError) as refused, endpoint.client() as client:
        client.embed([GOOD], "top")
    assert refused.value.status == 400
    assert "top" in refused.value.message


not_pictures = st.one_of(
    st.binary(max_size=200),
    st.integers(1, len(GOOD) // 2).map(lambda length: GOOD[:length]),
    st.binary(min_size=1, max_size=50).map(lambda tail: b"\xff\xd8\xff\xe0" + tail),
    # A PNG header that claims 10^10 pixels.
    st.just(GOOD[:16] + (100_000).to_bytes(4, "big") * 2 + GOOD[24:]),
)
wrong_values = st.one_of(
    not_pictures.map(b64),
    st.sampled_from(["!", "a", "é", "=x", "AAAA=A"]).map(lambda text: {"b64": text}),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(max_size=20),
    st.just([]),
    st.just([[b64(GOOD)]]),
    st.dictionaries(st.sampled_from(["image", "b64", "x"]), st.integers(), min_size=1),
)
wrong_bodies = st.one_of(
    st.binary(max_size=100),
    st.text(max_size=50).map(str.encode),
    st.recursive(st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)),
    wrong_values.map(lambda value: {"instances": [value]}),
    wrong_values.map(lambda value: {"instances": [b64(GOOD), value]}),
    wrong_values.map(lambda value: {"inputs": [value]}),
    wrong_values.map(lambda value: {"inputs": {"images": [value]}}),
    st.sampled_from(["images", "inputs", "picture"]).map(lambda key: {key: [b64(GOOD)]}),
    st.sampled_from(["image", "pixels", ""]).map(lambda name: {"inputs": {name: [b64(GOOD)]}}),
    st.just({"instances": []}),
    st.just({"inputs": []}),
    st.just({"instances": [b64(GOOD)], "inputs": [b64(GOOD)]}),
    st.sampled_from(["top", "Low", " "]).map(
        lambda name: {"instances": [b64(GOOD)], "signature_name": name}
    ),
    st.just({"instances": [b64(GOOD)], "signature_name": 7}),
    st.sampled_from([[[[[1.5, 2, 3]]]], [[1, 2, 3]], [[[["a", "b", "c"]]]], [[[[1, 2]]]]]).map(
        lambda pixels: {"inputs": pixels, "signature_name": "pixels"}
    ),
)


@settings(max_examples=150)
@given(wrong_bodies)
def test_bad_rest_requests_are_refused_with_a_message(endpoint, body):
    """Each is a 4xx that says why, and the next good request is answered."""
    status, answer = endpoint.post(body)
    assert 400 <= status < 500, answer
    assert answer["error"].strip()
    status, answer = endpoint.post({"instances": [b64(GOOD)]})
    assert status == 200, answer


@settings(max_examples=50)
@given(
    st.one_of(
        not_pictures.map(lambda content: ("images", [GOOD, content])),
        st.just(("images", [])),
        st.sampled_from(["image", "pixels", ""]).map(lambda name: (name, [GOOD])),
        st.lists(st.integers(0, 9), min_size=1, max_size=3).map(lambda numbers: ("images", numbers)),
        st.just(("images", [[GOOD]])),
    )
)
def test_bad_grpc_requests_are_refused_with_a_message(endpoint, request_input):
    """Each is INVALID_ARGUMENT that says why, and the next good request is answered."""
    import grpc
    import tensorflow as tf

    name, values = request_input
    if endpoint.grpc_url is None:
        pytest.skip("RLL_SERVING_GRPC is unset")
    stub, request = predict_call(endpoint)
    dtype = tf.int64 if values and isinstance(values[0], int) else tf.string
    request.inputs[name].CopyFrom(tf.make_tensor_proto(values, dtype))
    with pytest.raises(grpc.RpcError) as refused:
        stub.Predict(request, timeout=60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().strip()
    stub, request = predict_call(endpoint)
    request.inputs["images"].CopyFrom(tf.make_tensor_proto([GOOD]))
    assert stub.Predict(request, timeout=60).outputs["embedding"].tensor_shape.dim[0].size == 1


CHANNELS = {}


def predict_call(endpoint):
    """The official stub, and an empty request."""
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    target = endpoint.grpc_url.removeprefix("grpc://")
    if target not in CHANNELS:
        CHANNELS[target] = grpc.insecure_channel(target)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = endpoint.model
    return prediction_service_pb2_grpc.PredictionServiceStub(CHANNELS[target]), request


class Callers:
    """Threads that ask until told to end; what they got, and what went wrong."""

    def __init__(self, count, ask):
        self.failures, self.answers, self._ending = [], [], threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number, ask)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self, number, ask):
        try:
            while not self._ending.is_set():
                self.answers.append(ask(number))
        except BaseException as error:
            self.failures.append(error)

    def end(self):
        """Let each end its request; fail with the first failure."""
        self._ending.set()
        for thread in self._threads:
            thread.join()
        if self.failures:
            raise self.failures[0]


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_concurrent_callers_each_get_their_own_answer(endpoint, transport):
    """32 callers, 2,000 requests of different pictures in all: none lost, none mixed up, none doubled."""
    count = REQUESTS // 2  # each way half of them
    pictures = draw_pictures(count, seed=1 + (transport == "grpc"))
    with endpoint.client(transport, batch_size=50) as client:
        wanted = client.embed(pictures)
    squared = np.sum(wanted**2, axis=1)
    distances = squared[:, None] + squared - 2 * wanted @ wanted.T + 9 * np.eye(count)
    assert distances.min() > (10 * TOLERANCE) ** 2, "the pictures must be told apart by their embeddings"
    answers = [[] for _ in range(count)]
    failures = []

    def call(caller, client):
        try:
            for number in range(caller, count, CALLERS):
                answers[number].append(client.embed([pictures[number]])[0])
        except BaseException as error:
            failures.append(error)

    with endpoint.client(transport, concurrency=CALLERS) as client:
        threads = [threading.Thread(target=call, args=(caller, client)) for caller in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert [len(each) for each in answers] == [1] * count
    np.testing.assert_allclose(np.concatenate(answers), wanted, atol=TOLERANCE)


def test_a_new_version_is_taken_up_without_a_failed_request(endpoint):
    """It appears while 8 callers ask; the old number is gone afterwards, the new one answers."""
    newest = endpoint.artefact().folder
    wanted = endpoint.artefact().embed([GOOD])
    # A request that fails is not sent again.
    with endpoint.client(attempts=1, concurrency=8) as client:
        callers = Callers(8, lambda _: client.embed([GOOD]))
        try:
            number = endpoint.add_version(lambda folder: shutil.copytree(newest, folder))
            wait_for(lambda: client.status().get(number, ("",))[0] == "AVAILABLE")
            wait_for(lambda: client.status().get(int(newest.name), ("END",))[0] == "END")
            before = len(callers.answers)
            wait_for(lambda: len(callers.answers) > before + 20 or callers.failures)
        finally:
            callers.end()
        for answer in callers.answers:
            np.testing.assert_allclose(answer, wanted, atol=TOLERANCE)
    with endpoint.client(version=number) as client:
        np.testing.assert_allclose(client.embed([GOOD]), wanted, atol=TOLERANCE)


def test_a_corrupt_version_is_refused_and_the_old_one_goes_on(endpoint):
    """Its status tells why; every request is answered as before."""
    wanted = endpoint.artefact().embed([GOOD])

    def corrupt(folder):
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"corrupt")

    with endpoint.client(attempts=1, concurrency=4) as client:
        callers = Callers(4, lambda _: client.embed([GOOD]))
        try:
            number = endpoint.add_version(corrupt)
            try:
                wait_for(lambda: client.status().get(number, ("",))[0] == "END")
                assert client.status()[number][1]
                before = len(callers.answers)
                wait_for(lambda: len(callers.answers) > before + 20 or callers.failures)
            finally:
                shutil.rmtree(endpoint.folder / str(number))
        finally:
            callers.end()
        assert client.is_ready()
        for answer in callers.answers:
            np.testing.assert_allclose(answer, wanted, atol=TOLERANCE)
