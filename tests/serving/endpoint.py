"""The endpoint that the conformance tests call, and what they send."""

import base64
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import urllib3
from PIL import Image

from serving.artefact import Artefact
from serving.client import EmbeddingClient
from serving.versions import write_manifest
from tests.conftest import ROOT

TOLERANCE = 1e-5
WAIT_S = 180
HTTP = urllib3.PoolManager(retries=False)


class Endpoint:
    """An endpoint; what is not known of it is None, and the tests that need it are left out."""

    def __init__(self, url, grpc_url, model, folder):
        self.url, self.grpc_url, self.model, self.folder = url, grpc_url, model, folder
        self._newest = 0

    def address(self, transport):
        """Of `rest` or `grpc`."""
        if transport == "grpc" and self.grpc_url is None:
            pytest.skip("RLL_SERVING_GRPC is unset")
        return self.url if transport == "rest" else self.grpc_url

    def client(self, transport="rest", **options):
        """A client of it."""
        return EmbeddingClient(self.address(transport), self.model, **options)

    @functools.cached_property
    def artefact(self):
        """What it serves, in this process."""
        if self.folder is None:
            pytest.skip("RLL_SERVING_ARTEFACT is unset")
        return Artefact(self.folder)

    def get(self, suffix=""):
        """A GET request: status and parsed response."""
        response = HTTP.request("GET", f"{self.url}/v1/models/{self.model}{suffix}")
        return response.status, json.loads(response.data)

    def post(self, body, suffix=":predict"):
        """A predict request as it stands: status and parsed response."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = HTTP.request("POST", f"{self.url}/v1/models/{self.model}{suffix}", body=content)
        return response.status, json.loads(response.data)

    def channel(self):
        """Of gRPC."""
        return _channel(self.address("grpc").removeprefix("grpc://"))

    def require_gallery(self):
        """Leave the test out unless the served model has a gallery."""
        if "search" not in self.get("/metadata")[1]["metadata"]["signature_def"]["signature_def"]:
            pytest.skip("the served model has no gallery")

    def version(self):
        """The version that is served."""
        _, metadata = self.get("/metadata")
        return int(metadata["model_spec"]["version"])

    def add_version(self, write):
        """Write a further version as `rll export` does: whole at once. Returns its folder."""
        if self.folder is None or not os.access(self.folder, os.W_OK):
            pytest.skip("RLL_SERVING_ARTEFACT is unset, or can't be written to")
        versions = [int(entry.name) for entry in self.folder.iterdir() if entry.name.isdigit()]
        number = self._newest = 1 + max(self._newest, *versions)  # no number twice, though its folder is gone
        partial = self.folder / f".partial-{number}"
        write(partial)
        return partial.rename(self.folder / str(number))


def given_endpoint():
    """The endpoint that the environment names, if it does."""
    url, folder = os.environ.get("RLL_SERVING_URL"), os.environ.get("RLL_SERVING_ARTEFACT")
    if not url:
        return None
    name = os.environ.get("RLL_SERVING_MODEL", "rll_tf")
    return Endpoint(url.rstrip("/"), os.environ.get("RLL_SERVING_GRPC"), name, folder and Path(folder))


class ServeProcess:
    """`rll serve` in a process of its own, as a user starts it; a context manager.

    Args:
        words: after `rll serve`.
        path: the only folder on the path.
        until: the line on standard error with which it begins to serve; its match is `announced`.
    """

    def __init__(self, *words, path, until=r"rll_tf at (http://\S+) and (grpc://[^;\s]+)"):
        command = [sys.executable, "-m", "trainers.cli", "serve", *map(str, words)]
        environment = {**os.environ, "PATH": str(path)}
        self.lines = []
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        for line in self._process.stderr:
            self.lines.append(line.rstrip("\n"))
            self.announced = re.search(until, line)
            if self.announced:
                break
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        self.lines.extend(line.rstrip("\n") for line in self._process.stderr)

    def end(self, number=signal.SIGINT):
        """Send the signal and wait: the exit status."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self.wait()

    def wait(self):
        """The exit status."""
        status = self._process.wait(WAIT_S)
        self._reader.join()
        self._process.stderr.close()
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
        self.wait()


def encoded(pixels, form="PNG"):
    """A picture file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=form)
    return buffer.getvalue()


def draw_pictures(count, seed=0):
    """Pictures of nine random fields each, all different."""
    fields = np.random.default_rng(seed).integers(0, 256, [count, 3, 3, 3], np.uint8)
    return [encoded(np.kron(each, np.ones([6, 6, 1], np.uint8))) for each in fields]


def change_weights(version):
    """Let an exported version embed otherwise, by noise on all kernels, with a manifest that says so."""
    prefix = str(version / "variables" / "variables")
    reader, rng = tf.train.load_checkpoint(prefix), np.random.default_rng(0)
    values = {name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())}
    for name, value in values.items():
        if getattr(value, "ndim", 0) > 1 and "gallery" not in name:
            values[name] = value + rng.normal(0, value.std(), value.shape).astype(value.dtype)
    names, whole = list(values), [""] * len(values)
    tensors = [*values.values()]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=whole, tensors=tensors)
    write_manifest(version)


PICTURES = draw_pictures(20)
GOOD = PICTURES[0]


def b64(content):
    """How bytes travel in JSON."""
    return {"b64": base64.b64encode(content).decode()}


@functools.cache
def _channel(target):
    import grpc

    return grpc.insecure_channel(target)


def predict_call(endpoint):
    """The official stub, and an empty request."""
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = endpoint.model
    return prediction_service_pb2_grpc.PredictionServiceStub(endpoint.channel()), request


def wait_for(condition):
    """Until it holds; a server that never gets there fails here."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "the server never got there"
        time.sleep(0.02)
