"""What any server of an exported model must answer: the development server, or TensorFlow Serving.

`tests/serving/conftest.py` tells how to name another endpoint.
"""

import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

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
        answered = client.embed(PICTURES, level)
    assert answered.dtype == np.float32
    np.testing.assert_allclose(answered, endpoint.artefact.embed(PICTURES, level), atol=TOLERANCE)


@TRANSPORTS
def test_pixels_are_embedded_too(endpoint, transport):
    """Decoded pictures of one size give what their files give."""
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(picture))) for picture in PICTURES])
    with endpoint.client(transport, batch_size=8) as client:
        np.testing.assert_allclose(client.embed_pixels(pixels), client.embed(PICTURES), atol=TOLERANCE)


@TRANSPORTS
def test_search_equals_the_artefact_in_this_process(endpoint, transport):
    """Rows, labels, names and distances of the packed gallery."""
    endpoint.require_gallery()
    with endpoint.client(transport, batch_size=8) as client:
        answered = client.search(PICTURES)
    wanted = endpoint.artefact.search(PICTURES)
    assert answered.ids.dtype == answered.labels.dtype == np.int64
    assert answered.distances.dtype == np.float32
    for name in ("ids", "labels", "paths", "class_names"):
        np.testing.assert_array_equal(getattr(answered, name), getattr(wanted, name))
    np.testing.assert_allclose(answered.distances, wanted.distances, atol=TOLERANCE)
    assert answered.paths[0, 0].endswith(".png")


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
            "embeddings", "labels", "paths", "class_names", "level"
        }  # fmt: skip
        np.testing.assert_allclose(there["embeddings"], here["embeddings"], atol=TOLERANCE)
        for name in set(here.files) - {"embeddings"}:
            np.testing.assert_array_equal(there[name], here[name])


@pytest.mark.parametrize(("transport", "has_gallery_file"), [("rest", False), ("grpc", True)])
def test_rll_search_prints_the_same(endpoint, transport, has_gallery_file, pictures, tmp_path, capfd):
    """With MODEL and with --endpoint, in the packed gallery and in a file's."""
    endpoint.require_gallery()
    queries = sorted(pictures.rglob("*.png"))[::10]
    words = ["--top", 3]
    if has_gallery_file:
        words += ["--gallery", tmp_path / "gallery.npz"]
        rll("embed", endpoint.artefact.folder, "--data", f"folder:{pictures}", "--to", words[-1])
    printed = []
    there = ("--endpoint", endpoint.address(transport), "--model-name", endpoint.model)
    for asked in ((endpoint.artefact.folder,), there):
        capfd.readouterr()
        rll("search", *asked, *queries, *words)
        printed.append([line.split() for line in capfd.readouterr().out.splitlines()])
    here, there = printed
    assert len(here) == len(queries) * (1 + 3)
    for line, wanted in zip(there, here, strict=True):
        is_hit = wanted[0].isdigit()
        if is_hit:
            assert float(line.pop(1)) == pytest.approx(float(wanted.pop(1)), abs=2e-4)
        assert line == wanted


def test_rest_metadata_and_status(endpoint):
    """The documents that TensorFlow Serving gives, of the model and of one version."""
    number = endpoint.version()
    for suffix in ("", f"/versions/{number}"):
        status, answer = endpoint.get(suffix)
        assert status == 200
        health = {"error_code": "OK", "error_message": ""}
        row = {"version": str(number), "state": "AVAILABLE", "status": health}
        assert row in answer["model_version_status"]
        status, answer = endpoint.get(f"{suffix}/metadata")
        assert status == 200
        spec = answer["model_spec"]
        assert (spec["name"], spec["version"]) == (endpoint.model, str(number))
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        assert {"serving_default", "low", "mid", "high", "pixels"} <= set(signatures)
        assert signatures["low"]["method_name"] == "tensorflow/serving/predict"
        (name, tensor), = signatures["serving_default"]["inputs"].items()  # fmt: skip
        assert (name, tensor["dtype"]) == ("images", "DT_STRING")
        assert tensor["tensor_shape"]["dim"][0]["size"] == "-1"


@TRANSPORTS
def test_the_client_tells_metadata_and_status(endpoint, transport):
    """Both ways alike."""
    with endpoint.client(transport) as client, endpoint.client() as other:
        assert client.is_ready()
        assert client.metadata() == other.metadata()
        assert client.status() == other.status()
        assert client.status()[endpoint.version()] == ("AVAILABLE", "")


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
        for suffix in (":predict", f"/versions/{endpoint.version()}:predict"):
            status, answer = endpoint.post(body, suffix)
            assert (status, list(answer)) == (200, [key]), answer
            np.testing.assert_allclose(answer[key], wanted, atol=TOLERANCE)


def test_several_outputs_come_by_name(endpoint):
    """Search answers in rows of all outputs, or in columns; names of files as strings, not in base64."""
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
    """It is sent alone, and answered as the artefact answers in this process."""
    large = encoded(np.random.default_rng(0).integers(0, 256, [2400, 2400, 3], np.uint8), "BMP")
    assert len(large) > 2**24
    with endpoint.client(transport) as client:
        answered = client.embed([GOOD, large])
    np.testing.assert_allclose(answered, endpoint.artefact.embed([GOOD, large]), atol=TOLERANCE)


@pytest.mark.parametrize(("transport", "content"), [("rest", b""), ("grpc", b""), ("rest", b"no picture")])
def test_a_file_that_is_no_picture_is_named(endpoint, transport, content, pictures, tmp_path, capfd):
    """By both commands, with MODEL and with --endpoint: the same line."""
    shutil.copytree(pictures / "class 0", tmp_path / "data" / "class")
    file = tmp_path / "data" / "class" / "bad.png"
    file.write_bytes(content)
    there = ("--endpoint", endpoint.address(transport), "--model-name", endpoint.model)
    told = []
    for asked in ((endpoint.artefact.folder,), there):
        capfd.readouterr()
        words = ("embed", *asked, "--data", f"folder:{tmp_path / 'data'}", "--to", tmp_path / "x.npz")
        assert cli.run([str(word) for word in words]) == 1
        assert cli.run([str(word) for word in ("search", *asked, file)]) == 1
        told.append(capfd.readouterr().err)
    here, there = told
    assert here == there
    assert here.count(f"{file} is not a whole picture") == 2


def test_a_grpc_answer_tells_what_answered(endpoint):
    """Name, version and signature; with a filter only the outputs that are asked for."""
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


def test_what_is_not_there_is_told(endpoint):
    """Other models, versions, labels, signatures and paths."""
    good = {"instances": [b64(GOOD)]}
    for suffix, wanted in [
        ("/versions/99999:predict", 404), ("x:predict", 404), ("/labels/stable:predict", 400), (":ask", 400)
    ]:  # fmt: skip
        status, answer = endpoint.post(good, suffix)
        assert (status, list(answer)) == (wanted, ["error"])
        assert answer["error"]
    for suffix, wanted in [("/versions/99999", 404), ("x", 404), ("x/metadata", 404), ("/other", 400)]:
        status, answer = endpoint.get(suffix)
        assert (status, list(answer)) == (wanted, ["error"])
    assert HTTP.request("GET", f"{endpoint.url}/favicon.ico").status == 404


@TRANSPORTS
def test_the_client_tells_what_is_not_there(endpoint, transport):
    """A level and a version, in words that name the endpoint."""
    codes = {"rest": (400, 404), "grpc": ("FAILED_PRECONDITION", "NOT_FOUND")}[transport]
    with pytest.raises(RequestError, match="top") as refused, endpoint.client(transport) as client:
        client.embed([GOOD], "top")
    assert refused.value.status == codes[0]
    with (
        pytest.raises(RequestError, match="99999") as refused,
        endpoint.client(transport, version=99999) as client,
    ):
        client.embed([GOOD])
    assert refused.value.status == codes[1]
    assert str(refused.value).startswith(endpoint.address(transport))
