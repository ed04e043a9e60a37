"""What any server of an exported model must give: the development server, or TensorFlow Serving.

`tests/serving/conftest.py` says how to name another endpoint.
"""

import gzip
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from serving.client import RequestError
from tests.conftest import ROOT, rll
from tests.serving.endpoint import GOOD, HTTP, PICTURES, TOLERANCE, b64, encoded, predict_call
from trainers import cli

TRANSPORTS = pytest.mark.parametrize("transport", ["rest", "grpc"])


@TRANSPORTS
@pytest.mark.parametrize("level", [None, "low", "mid", "high"])
def test_embeddings_equal_the_artefact_in_this_process(endpoint, transport, level):
    """In several requests, in order, of the same width and type."""
    with endpoint.client(transport, batch_size=3) as client:
        found = client.embed(PICTURES, level)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, endpoint.artefact.embed(PICTURES, level), atol=TOLERANCE)


def pixels_px(endpoint):
    """The side of the pictures that `pixels` takes."""
    _, metadata = endpoint.get("/metadata")
    signature = metadata["metadata"]["signature_def"]["signature_def"]["pixels"]
    count, height, width, channels = signature["inputs"]["pixels"]["tensor_shape"]["dim"]
    assert (count["size"], channels["size"], height) == ("-1", "3", width)
    return int(height["size"])


@TRANSPORTS
def test_pixels_are_embedded_too(endpoint, transport):
    """Decoded pictures of the model's size give what their files give."""
    side = pixels_px(endpoint)
    pixels = np.random.default_rng(0).integers(0, 256, [20, side, side, 3], np.uint8)
    with endpoint.client(transport, batch_size=8) as client:
        files = [encoded(picture) for picture in pixels]
        np.testing.assert_allclose(client.embed_pixels(pixels), client.embed(files), atol=TOLERANCE)


@TRANSPORTS
def test_pixels_have_one_size(endpoint, transport):
    """So that a server can join requests: callers get their own embeddings, another size is rejected."""
    side = pixels_px(endpoint)
    pixels = np.random.default_rng(1).integers(0, 256, [40, side, side, 3], np.uint8)
    wanted = endpoint.artefact.embed([encoded(picture) for picture in pixels])
    with endpoint.client(transport, batch_size=1, concurrency=16) as client:
        np.testing.assert_allclose(client.embed_pixels(pixels), wanted, atol=TOLERANCE)
        for other in ([1, side + 1, side, 3], [1, side, side - 1, 3]):
            with pytest.raises(RequestError) as rejected:
                client.embed_pixels(np.zeros(other, np.uint8))
            assert rejected.value.status in {400, "INVALID_ARGUMENT", "FAILED_PRECONDITION"}


@TRANSPORTS
def test_search_equals_the_artefact_in_this_process(endpoint, transport):
    """Rows, labels, names and distances of the packed gallery."""
    endpoint.require_gallery()
    with endpoint.client(transport, batch_size=8) as client:
        found = client.search(PICTURES)
    wanted = endpoint.artefact.search(PICTURES)
    assert found.ids.dtype == found.labels.dtype == np.int64
    assert found.distances.dtype == np.float32
    for name in ("ids", "labels", "paths", "class_names"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    np.testing.assert_allclose(found.distances, wanted.distances, atol=TOLERANCE)
    assert found.paths[0, 0]


@pytest.mark.parametrize(
    ("transport", "words"), [("rest", ()), ("grpc", ("--level", "mid", "--batch-size", 7))]
)
def test_rll_embed_writes_the_same_file(endpoint, transport, words, pictures, tmp_path):
    """With MODEL and with --endpoint: the same arrays, embeddings to the tolerance."""
    files = [tmp_path / "here.npz", tmp_path / "there.npz"]
    data = ("--data", f"folder:{pictures}")
    rll("embed", endpoint.artefact.folder, *data, *words, "--to", files[0])
    there = ("--endpoint", endpoint.address(transport), "--model-name", endpoint.model)
    rll("embed", *there, *data, *words, "--to", files[1])
    with np.load(files[0]) as here, np.load(files[1]) as there:
        assert set(here.files) == set(there.files) == {
            "embeddings", "labels", "paths", "class_names", "level", "version", "weights_sha256"
        }  # fmt: skip
        np.testing.assert_allclose(there["embeddings"], here["embeddings"], atol=TOLERANCE)
        for name in set(here.files) - {"embeddings", "version", "weights_sha256"}:
            np.testing.assert_array_equal(there[name], here[name])
        assert there["version"] == endpoint.version()
        assert (here["weights_sha256"], there["weights_sha256"]) == (
            endpoint.artefact.metadata["weights_sha256"],
            "",
        )


@pytest.mark.parametrize(("transport", "has_gallery_file"), [("rest", False), ("grpc", True)])
def test_rll_search_prints_the_same(endpoint, transport, has_gallery_file, pictures, tmp_path, capfd):
    """With MODEL and with --endpoint, in the packed gallery and in a file's."""
    endpoint.require_gallery()
    queries = sorted(pictures.rglob("*.png"))[::10]
    words = ["--top", 3]
    if has_gallery_file:
        words += ["--gallery", tmp_path / "gallery.npz"]
        rll("embed", endpoint.artefact.folder, "--data", f"folder:{pictures}", "--to", words[-1])
        with np.load(words[-1]) as arrays:  # versions may have come since the artefact was opened
            np.savez(words[-1], **{**arrays, "version": endpoint.version()})
    printed = []
    there = ("--endpoint", endpoint.address(transport), "--model-name", endpoint.model)
    for source in ((endpoint.artefact.folder,), there):
        capfd.readouterr()
        rll("search", *source, *queries, *words)
        printed.append([line.split() for line in capfd.readouterr().out.splitlines()])
    here, there = printed
    assert len(here) == len(queries) * (1 + 3)
    for line, wanted in zip(there, here, strict=True):
        is_hit = wanted[0].isdigit()
        if is_hit:
            assert float(line.pop(1)) == pytest.approx(float(wanted.pop(1)), abs=2e-4)
        assert line == wanted


def test_a_gallery_of_another_version_is_refused(endpoint, pictures, tmp_path, capfd):
    """Its distances would mean nothing; the line says which version it is of."""
    gallery = tmp_path / "gallery.npz"
    there = ("--endpoint", endpoint.url, "--model-name", endpoint.model)
    rll("embed", *there, "--data", f"folder:{pictures}", "--to", gallery)
    with np.load(gallery) as arrays:
        np.savez(gallery, **{**arrays, "version": 99})
    query = next(pictures.rglob("*.png"))
    assert cli.run([str(word) for word in ("search", *there, "--gallery", gallery, query)]) == 1
    wanted = f"this model, version {endpoint.version()}; it holds those of version 99: run rll embed again"
    assert wanted in capfd.readouterr().err


def test_rest_metadata_and_status(endpoint):
    """The documents that TensorFlow Serving gives, of the model and of one version."""
    number = endpoint.version()
    for suffix in ("", f"/versions/{number}"):
        status, response = endpoint.get(suffix)
        assert status == 200
        health = {"error_code": "OK", "error_message": ""}
        row = {"version": str(number), "state": "AVAILABLE", "status": health}
        assert row in response["model_version_status"]
        status, response = endpoint.get(f"{suffix}/metadata")
        assert status == 200
        spec = response["model_spec"]
        assert (spec["name"], spec["version"]) == (endpoint.model, str(number))
        signatures = response["metadata"]["signature_def"]["signature_def"]
        assert {"serving_default", "low", "mid", "high", "pixels"} <= set(signatures)
        assert signatures["low"]["method_name"] == "tensorflow/serving/predict"
        (name, tensor), = signatures["serving_default"]["inputs"].items()  # fmt: skip
        assert (name, tensor["dtype"]) == ("images", "DT_STRING")
        assert tensor["tensor_shape"]["dim"][0]["size"] == "-1"


@TRANSPORTS
def test_the_client_reads_metadata_and_status(endpoint, transport):
    """Both ways alike."""
    with endpoint.client(transport) as client, endpoint.client() as other:
        assert client.is_ready()
        assert client.metadata() == other.metadata()
        assert client.status() == other.status()
        assert client.status()[endpoint.version()] == ("AVAILABLE", "")


def test_rows_and_columns(endpoint):
    """Both of TensorFlow Serving's formats, each plain and by name, respond in their own form."""
    with endpoint.client() as client:
        wanted = client.embed([GOOD, PICTURES[1]])
    values = [b64(GOOD), b64(PICTURES[1])]
    for body, key in [
        ({"instances": values}, "predictions"),
        ({"instances": [{"images": value} for value in values]}, "predictions"),
        ({"inputs": values}, "outputs"),
        ({"inputs": {"images": values}, "signature_name": "serving_default"}, "outputs"),
    ]:
        for suffix in (":predict", f"/versions/{endpoint.version()}:predict"):
            status, response = endpoint.post(body, suffix)
            assert (status, list(response)) == (200, [key]), response
            np.testing.assert_allclose(response[key], wanted, atol=TOLERANCE)


def test_several_outputs_come_by_name(endpoint):
    """Search responds in rows of all outputs, or in columns; names of files as strings, not in base64."""
    endpoint.require_gallery()
    wanted = endpoint.artefact.search([GOOD, PICTURES[1]])
    values = [b64(GOOD), b64(PICTURES[1])]
    status, rows = endpoint.post({"instances": values, "signature_name": "search"})
    assert status == 200, rows
    status, columns = endpoint.post({"inputs": values, "signature_name": "search"})
    assert status == 200, columns
    assert set(columns["outputs"]) == {"ids", "labels", "distances", "paths", "class_names"}
    for name, column in columns["outputs"].items():
        assert [row[name] for row in rows["predictions"]] == column
        if name != "distances":
            assert column == getattr(wanted, name).tolist()


def test_curl_gets_the_embedding(endpoint, tmp_path):
    """The documented request, by a client that is none of ours."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    (tmp_path / "request.json").write_text(json.dumps({"instances": [b64(GOOD)]}))
    address = f"{endpoint.url}/v1/models/{endpoint.model}:predict"
    process = subprocess.run(
        ["curl", "-sS", "-d", f"@{tmp_path / 'request.json'}", address], capture_output=True, check=True
    )
    with endpoint.client() as client:
        wanted = client.embed([GOOD])
    np.testing.assert_allclose(json.loads(process.stdout)["predictions"], wanted, atol=TOLERANCE)


def test_the_documented_python_runs(endpoint, tmp_path, monkeypatch):
    """The block as it stands, but for the address and the model's name."""
    endpoint.require_gallery()
    (block,) = re.findall(
        r"```python\n([^`]*EmbeddingClient[^`]*)```", (ROOT / "docs" / "serving.md").read_text("utf-8")
    )
    address = f'"{endpoint.url}", "{endpoint.model}"'
    assert '"http://127.0.0.1:8501"' in block
    (tmp_path / "pictures" / "others").mkdir(parents=True)
    for number, picture in enumerate(PICTURES[:3]):
        (tmp_path / "pictures" / "others" / f"{number}.jpg").write_bytes(picture)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block.replace('"http://127.0.0.1:8501"', address), names)
    for name, level in [("embeddings", None), ("low", "low")]:
        wanted = endpoint.artefact.embed(PICTURES[:3], level)
        np.testing.assert_allclose(names[name], wanted, atol=TOLERANCE)
    assert names["found"].ids.shape == endpoint.artefact.search(PICTURES[:2]).ids.shape


@TRANSPORTS
def test_a_picture_above_4_mb(endpoint, transport):
    """The 4 MB at which gRPC stops by itself do not stop it."""
    noise = encoded(np.random.default_rng(0).integers(0, 256, [1300, 1300, 3], np.uint8))
    assert len(noise) > 2**22
    with endpoint.client(transport) as client:
        assert client.embed([noise, GOOD]).shape[0] == 2


@TRANSPORTS
def test_a_picture_larger_than_a_batch(endpoint, transport):
    """It is sent alone, and embedded as by the artefact in this process."""
    large = encoded(np.random.default_rng(0).integers(0, 256, [2400, 2400, 3], np.uint8), "BMP")
    assert len(large) > 2**24
    with endpoint.client(transport) as client:
        found = client.embed([GOOD, large])
    np.testing.assert_allclose(found, endpoint.artefact.embed([GOOD, large]), atol=TOLERANCE)


@pytest.mark.parametrize(("transport", "content"), [("rest", b""), ("grpc", b"no picture")])
def test_a_file_that_is_no_picture_is_named(endpoint, transport, content, pictures, tmp_path, capfd):
    """By both commands, with MODEL and with --endpoint: the same line."""
    shutil.copytree(pictures / "class 0", tmp_path / "data" / "class")
    file = tmp_path / "data" / "class" / "bad.png"
    file.write_bytes(content)
    there = ("--endpoint", endpoint.address(transport), "--model-name", endpoint.model)
    printed = []
    for source in ((endpoint.artefact.folder,), there):
        capfd.readouterr()
        words = ("embed", *source, "--data", f"folder:{tmp_path / 'data'}", "--to", tmp_path / "x.npz")
        assert cli.run([str(word) for word in words]) == 1
        assert cli.run([str(word) for word in ("search", *source, file)]) == 1
        printed.append(capfd.readouterr().err)
    here, there = printed
    assert here == there
    assert here.count(f"{file} is not a whole picture") == 2


def test_a_grpc_response_names_model_version_and_signature(endpoint):
    """Name, version and signature; with a filter only the outputs in it."""
    import tensorflow as tf

    stub, request = predict_call(endpoint)
    request.inputs["images"].CopyFrom(tf.make_tensor_proto([GOOD]))
    spec = stub.Predict(request, timeout=60).model_spec
    assert (spec.name, spec.version.value) == (endpoint.model, endpoint.version())
    assert spec.signature_name == "serving_default"
    endpoint.require_gallery()
    request.model_spec.signature_name = "search"
    request.output_filter.extend(["ids", "paths"])
    response = stub.Predict(request, timeout=60)
    assert response.model_spec.signature_name == "search"
    assert set(response.outputs) == {"ids", "paths"}


def test_what_is_not_there_is_an_error(endpoint):
    """Other models, versions, labels, signatures and paths."""
    good = {"instances": [b64(GOOD)]}
    for suffix, wanted in [
        ("/versions/99999:predict", 404), ("x:predict", 404), ("/labels/nobody:predict", 400), (":ask", 400),
        (":PREDICT", 400), (":predict?now=1", 400), (f"/versions/{10**20}:predict", 400),
    ]:  # fmt: skip
        status, response = endpoint.post(good, suffix)
        assert (status, list(response)) == (wanted, ["error"])
        assert response["error"]
    for suffix, wanted in [
        ("/versions/99999", 404), ("x", 404), ("x/metadata", 404), ("/other", 400), ("?now=1", 404),
        ("/metadata?now=1", 400),
    ]:  # fmt: skip
        status, response = endpoint.get(suffix)
        assert (status, list(response)) == (wanted, ["error"])
    assert endpoint.get("/METADATA") == endpoint.get()
    # What is no JSON is rejected before the model is looked for.
    assert endpoint.post(b"{", "x:predict")[0] == 400
    for method in ("PUT", "DELETE", "PATCH"):
        assert HTTP.request(method, f"{endpoint.url}/v1/models/{endpoint.model}").status == 400
    assert HTTP.request("GET", f"{endpoint.url}/favicon.ico").status == 404


def test_bodies_that_are_accepted(endpoint):
    """In gzip, after a byte order mark, before other bytes."""
    good = json.dumps({"instances": [b64(GOOD)]}).encode()
    wanted = endpoint.post(good)
    assert wanted[0] == 200
    for body in (b"\xef\xbb\xbf" + good, good + b" and \xff"):
        assert endpoint.post(body) == wanted
    for body, status in ((gzip.compress(good), 200), (b"no gzip", 400)):
        address = f"{endpoint.url}/v1/models/{endpoint.model}:predict"
        response = HTTP.request("POST", address, body=body, headers={"Content-Encoding": "gzip"})
        assert response.status == status


def test_a_pixel_keeps_its_lowest_8_bits(endpoint):
    """By REST, where numbers may be larger; beyond 32 bits they are rejected."""
    side = pixels_px(endpoint)

    def embedding_of(value):
        pixels = np.full([1, side, side, 3], value)
        return endpoint.post({"inputs": pixels.tolist(), "signature_name": "pixels"})

    assert embedding_of(300) == embedding_of(44) != embedding_of(45)
    assert embedding_of(-1) == embedding_of(255)
    assert embedding_of(2**31)[0] == 400


def test_a_browser_may_ask_first(endpoint):
    """OPTIONS, which needs an origin."""
    address = f"{endpoint.url}/v1/models/{endpoint.model}:predict"
    assert HTTP.request("OPTIONS", address, headers={"Origin": "https://example.org"}).status == 200
    assert HTTP.request("OPTIONS", address).status == 400


def test_grpc_questions_without_their_fields(endpoint):
    """A model and at least one known field of its metadata must be named."""
    import grpc
    from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_service_pb2_grpc

    stub, request = predict_call(endpoint)
    spec, message = request.model_spec, get_model_metadata_pb2.GetModelMetadataRequest
    fields = ["signature_def"]
    assert stub.GetModelMetadata(message(model_spec=spec, metadata_field=fields * 2), timeout=60).metadata
    models = model_service_pb2_grpc.ModelServiceStub(endpoint.channel())
    for call, question in [
        (stub.GetModelMetadata, message(metadata_field=fields)),
        (stub.GetModelMetadata, message(model_spec=spec)),
        (stub.GetModelMetadata, message(model_spec=spec, metadata_field=["other"])),
        (models.GetModelStatus, get_model_status_pb2.GetModelStatusRequest()),
    ]:
        with pytest.raises(grpc.RpcError) as rejected:
            call(question, timeout=60)
        assert rejected.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@TRANSPORTS
def test_what_is_not_there_is_an_error_of_the_client(endpoint, transport):
    """A level and a version, in words that name the endpoint."""
    codes = {"rest": (400, 404), "grpc": ("FAILED_PRECONDITION", "NOT_FOUND")}[transport]
    with pytest.raises(RequestError, match="top") as rejected, endpoint.client(transport) as client:
        client.embed([GOOD], "top")
    assert rejected.value.status == codes[0]
    with (
        pytest.raises(RequestError, match="99999") as rejected,
        endpoint.client(transport, version=99999) as client,
    ):
        client.embed([GOOD])
    assert rejected.value.status == codes[1]
    assert str(rejected.value).startswith(endpoint.address(transport))
