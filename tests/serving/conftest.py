"""The endpoint under test: the development server, unless the environment names another.

    RLL_SERVING_URL       the REST address, such as http://127.0.0.1:8501
    RLL_SERVING_GRPC      the gRPC address, such as grpc://127.0.0.1:8500; without it gRPC is left out
    RLL_SERVING_MODEL     the model's name [rll_tf]
    RLL_SERVING_ARTEFACT  the folder of versions that it serves, to compare with and, where it may be
                          written to, to add versions to; without it what needs the folder is left out

TensorFlow Serving finds a new version, and rejects a corrupt one, in time for the tests where it was started
with --file_system_poll_wait_seconds=1 --max_num_load_retries=0.
"""

import random
import shutil
import time

import numpy as np
import pytest

from rll_tf.data import open_dataset
from rll_tf.evaluation import concatenate_levels
from rll_tf.training import Run, embed
from serving.serve import CONFIG
from tests.conftest import export_unchecked
from tests.serving.endpoint import Endpoint, ServeProcess, given_endpoint


@pytest.fixture(scope="session")
def embeddings(run_folder, pictures, made_once):
    """Level -> the pictures' embeddings by the run's model, which every artefact must give."""

    def make(folder):
        run = Run.open(run_folder)
        levels = embed(run.best_model(), open_dataset(f"folder:{pictures}"), run.settings.preprocessing)
        folder.mkdir()
        np.savez(folder / "levels.npz", **levels)

    with np.load(made_once("embeddings", make) / "levels.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def artefact_folder(run_folder, pictures, embeddings, made_once):
    """A folder of versions; the one in it has the pictures as its gallery."""

    def make(folder):
        gallery = folder.with_suffix(".npz")
        catalogue = open_dataset(f"folder:{pictures}")
        np.savez(
            gallery,
            embeddings=concatenate_levels(embeddings),
            labels=catalogue.labels,
            paths=np.array(catalogue.paths),
            class_names=np.array(catalogue.class_names),
            level=np.array("concat"),
        )
        export_unchecked(run_folder, "--to", folder, "--gallery", gallery, "--top", 4)

    return made_once("artefacts", make)


@pytest.fixture(scope="session")
def artefact(artefact_folder):
    """The folder of its first version."""
    return artefact_folder / "1"


@pytest.fixture(scope="session")
def served(artefact_folder, tmp_path_factory):
    """A folder of versions, which tests add to, and the development server as `rll serve` starts it."""
    folder = shutil.copytree(artefact_folder, tmp_path_factory.mktemp("served") / "versions")
    path = tmp_path_factory.mktemp("path")
    docker = path / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    batching = ("--batching-parameters", CONFIG / "batching.pbtxt")
    with ServeProcess(folder, "--port", 0, "--grpc-port", 0, *batching, path=path) as server:
        assert server.announced, "\n".join(server.lines)
        yield folder, server
        # With connections still open: no thread may be torn down within TensorFlow.
        assert server.end() == 0, "\n".join(server.lines)
        assert server.lines[-1] == "rll serve: ended"


@pytest.fixture(scope="session")
def endpoint(request):
    """What the conformance tests send requests to."""
    endpoint = given_endpoint()
    if endpoint is None:
        folder, server = request.getfixturevalue("served")
        endpoint = Endpoint(*server.announced.groups(), "rll_tf", folder)
    return endpoint


@pytest.fixture
def pauses(monkeypatch):
    """Pauses are not waited for: the longest that each may be, in order."""
    taken = []
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)
    monkeypatch.setattr(time, "sleep", taken.append)
    return taken
