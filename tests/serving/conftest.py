"""The endpoint under test: the development server, unless the environment names another.

    RLL_SERVING_URL       the REST address, such as http://127.0.0.1:8501
    RLL_SERVING_GRPC      the gRPC address, such as grpc://127.0.0.1:8500; without it gRPC is left out
    RLL_SERVING_MODEL     the model's name [rll_tf]
    RLL_SERVING_ARTEFACT  the folder of versions that it serves, to compare with and, where it may be
                          written to, to add versions to; without it what needs the folder is left out

TensorFlow Serving looks for versions and tells of a corrupt one in time for the tests where it was started
with --file_system_poll_wait_seconds=1 --max_num_load_retries=0.
"""

import pytest

from tests.conftest import rll
from tests.serving.endpoint import Endpoint, ServeProcess, given_endpoint


@pytest.fixture(scope="session")
def served(exported, run_folder, pictures, tmp_path_factory):
    """A folder of versions with a gallery, and the development server as `rll serve` starts it."""
    folder = tmp_path_factory.mktemp("served")
    gallery = tmp_path_factory.mktemp("gallery") / "gallery.npz"
    rll("embed", exported, "--data", f"folder:{pictures}", "--to", gallery)
    rll("export", run_folder, "--to", folder, "--gallery", gallery, "--top", 4)
    path = tmp_path_factory.mktemp("path")
    docker = path / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    with ServeProcess(folder, "--port", 0, "--grpc-port", 0, path=path) as server:
        assert server.announced, "\n".join(server.lines)
        yield folder, server
        # With connections still open: no thread may be torn down within TensorFlow.
        assert server.end() == 0, "\n".join(server.lines)
        assert server.lines[-1] == "rll serve: ended"


@pytest.fixture(scope="session")
def endpoint(request):
    """What the conformance tests ask."""
    endpoint = given_endpoint()
    if endpoint is None:
        folder, server = request.getfixturevalue("served")
        endpoint = Endpoint(*server.announced.groups(), "rll_tf", folder)
    return endpoint
