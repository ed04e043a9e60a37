"""Many callers at once, while versions come; see `tests/serving/conftest.py`."""

import contextlib
import itertools
import math
import shutil
import signal
import socket
import threading

import numpy as np
import pytest

from serving.artefact import Artefact
from serving.client import EmbeddingClient
from tests.serving.endpoint import (
    GOOD,
    TOLERANCE,
    ServeProcess,
    change_weights,
    draw_pictures,
    wait_for,
)

CALLERS = 32
# Between two requests of a caller, so that loading a version gets some of the processor too.
PAUSE_S = 0.2


class Callers:
    """Threads that send one request after the other; what they got, and what went wrong.

    Args:
        call: the request's number -> its response.
        numbers: of the requests; the threads stop at their end, or at `end`.
        pause_s: of each caller between two requests.
    """

    def __init__(self, call, numbers, pause_s=0):
        self.failures, self.responses, self._begun, self._pause_s = [], [], [], pause_s
        self._call, self._numbers, self._lock = call, iter(numbers), threading.Lock()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _work(self):
        try:
            while not self._ending.wait(self._pause_s):
                with self._lock:
                    number = next(self._numbers, None)
                if number is None:
                    return
                self._begun.append(number)
                self.responses.append((number, self._call(number)))
        except BaseException as error:
            self.failures.append(error)

    def more(self, count):
        """Wait for so many further responses."""
        wanted = len(self.responses) + count
        wait_for(lambda: len(self.responses) >= wanted or self.failures)

    def settle(self):
        """Wait for the responses to all requests under way."""
        begun = set(self._begun)
        wait_for(lambda: begun <= {number for number, _ in self.responses} or self.failures)

    def join(self):
        """Wait for the responses to all requests; fail with the first failure."""
        for thread in self._threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def end(self):
        """Let each end its request."""
        self._ending.set()
        self.join()


@pytest.fixture
def clients(endpoint):
    """By REST and, where it is known, by gRPC; a request that fails is not sent again."""
    transports = ["rest"] + ["grpc"] * (endpoint.grpc_url is not None)
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(endpoint.client(transport, concurrency=CALLERS, attempts=1))
            for transport in transports
        ]


@pytest.mark.parametrize("requests", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_concurrent_callers_each_get_their_own_embedding(endpoint, clients, requests):
    """32 callers, all requests of different pictures: none lost, none mixed up, none doubled."""
    pictures = draw_pictures(requests, seed=1)
    wanted = endpoint.artefact.embed(pictures)
    squared = np.sum(wanted**2, axis=1)
    distances = squared[:, None] + squared - 2 * wanted @ wanted.T + 9 * np.eye(requests)
    assert distances.min() > (10 * TOLERANCE) ** 2, "the pictures must differ in their embeddings"
    callers = Callers(
        lambda number: clients[number % len(clients)].embed([pictures[number]])[0], range(requests)
    )
    callers.join()
    assert sorted(number for number, _ in callers.responses) == list(range(requests))
    for number, embedding in callers.responses:
        np.testing.assert_allclose(embedding, wanted[number], atol=TOLERANCE)


@pytest.mark.slow
def test_a_new_version_is_loaded_without_a_failed_request(endpoint, clients):
    """It appears under 32 callers; afterwards it is served, and the old one stays loaded."""
    old = endpoint.version()
    wanted = endpoint.artefact.embed([GOOD])
    callers = Callers(lambda number: clients[number % len(clients)].embed([GOOD]), itertools.count(), PAUSE_S)
    try:
        callers.more(CALLERS)
        added = endpoint.add_version(lambda folder: shutil.copytree(endpoint.folder / str(old), folder))
        number = int(added.name)
        wait_for(lambda: clients[0].status().get(number, ("",))[0] == "AVAILABLE")
        callers.more(CALLERS)
        assert clients[0].status()[old][0] == "AVAILABLE"
    finally:
        callers.end()
    assert endpoint.version() == number
    for _, embedding in callers.responses:
        np.testing.assert_allclose(embedding, wanted, atol=TOLERANCE)


@pytest.mark.parametrize("count", [120, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_call_gets_the_embeddings_of_one_version(endpoint, transport, count):
    """Though another one, with other weights, comes in the middle of it."""
    pictures = draw_pictures(count, seed=2)
    before, old = endpoint.artefact.embed(pictures), endpoint.version()
    added = []

    def add(folder):
        shutil.copytree(endpoint.folder / str(old), folder)
        change_weights(folder)

    def drawn():
        for number, picture in enumerate(pictures):
            if number == count // 3:
                added.append(endpoint.add_version(add))
                wait_for(lambda: endpoint.version() == int(added[0].name))
            yield picture

    try:
        with endpoint.client(transport, batch_size=8, concurrency=2) as client:
            found = client.embed(drawn())
            np.testing.assert_allclose(found, before, atol=TOLERANCE)
            after = client.embed(pictures)
        assert np.abs(after - before).max(axis=1).min() > 100 * TOLERANCE, "the versions must differ"
        assert endpoint.version() == int(added[0].name)
    finally:
        for folder in added:
            shutil.rmtree(folder)
            wait_for(lambda: endpoint.version() == old)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 20])
def test_a_killed_server_costs_no_embedding(artefact_folder, tmp_path, kills):
    """`kill -9` in the middle of requests by both transports; once it is back, each gets its response."""
    with contextlib.ExitStack() as probes:
        sockets = [probes.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        rest, grpc = (each.getsockname()[1] for each in sockets)
    words = (artefact_folder, "--port", rest, "--grpc-port", grpc)
    pictures = draw_pictures(CALLERS, seed=3)
    wanted = Artefact(artefact_folder).embed(pictures)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServeProcess(*words, path=tmp_path))
        addresses = (f"http://127.0.0.1:{rest}", f"grpc://127.0.0.1:{grpc}")
        clients = [
            # A busy machine takes minutes to start a server; `settle` limits what a client takes then.
            stack.enter_context(EmbeddingClient(address, deadline_s=math.inf, concurrency=CALLERS))
            for address in addresses
        ]
        callers = Callers(
            lambda number: clients[number % 2].embed([pictures[number % CALLERS]]), itertools.count(), PAUSE_S
        )
        try:
            for _ in range(kills):
                callers.more(CALLERS)
                assert server.end(signal.SIGKILL) == -signal.SIGKILL
                server = stack.enter_context(ServeProcess(*words, path=tmp_path))
                assert server.announced, server.lines
                callers.settle()
        finally:
            callers.end()
    for number, embedding in callers.responses:
        np.testing.assert_allclose(embedding[0], wanted[number % CALLERS], atol=TOLERANCE)


def test_a_corrupt_version_is_rejected_and_the_old_one_stays(endpoint, clients):
    """Its status has the reason; every response is as before."""
    old = endpoint.version()
    wanted = endpoint.artefact.embed([GOOD])

    def corrupt(folder):
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"corrupt")

    callers = Callers(lambda number: clients[number % len(clients)].embed([GOOD]), itertools.count(), PAUSE_S)
    try:
        added = endpoint.add_version(corrupt)
        try:
            wait_for(lambda: clients[0].status().get(int(added.name), ("",))[0] == "END")
            assert clients[0].status()[int(added.name)][1]
            callers.more(CALLERS)
        finally:
            shutil.rmtree(added)
    finally:
        callers.end()
    assert endpoint.version() == old
    for _, embedding in callers.responses:
        np.testing.assert_allclose(embedding, wanted, atol=TOLERANCE)
