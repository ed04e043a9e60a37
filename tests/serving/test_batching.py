"""The development server's batching, around a servable that only adds."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from google.protobuf import text_format

from serving.development.batching import Batcher
from serving.development.refusal import INVALID_ARGUMENT, UNAVAILABLE, RefusalError
from serving.messages import BatchingParameters


class Adder:
    """x -> x + 1, refusing negative numbers; holds each call until it is let go."""

    def __init__(self):
        self.sizes, self.go = [], threading.Event()

    def run(self, signature, inputs, wanted):
        """As `Servable.run`."""
        self.go.wait(30)
        self.sizes.append(len(inputs["x"]))
        if (inputs["x"] < 0).any():
            raise RefusalError(INVALID_ARGUMENT, "x must not be negative")
        return {"y": inputs["x"] + 1}


def ask(batcher, servable, *values):
    """One request of so many rows."""
    return batcher.run(servable, "add", {"x": np.array(values)}, ("y",))["y"].tolist()


def until(condition):
    """Wait for something that other threads do."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def served():
    """Batches of at most 4 rows, requests of at most 6, at most 8 rows waiting."""
    parameters = text_format.Parse(
        """
        max_batch_size { value: 6 } batch_timeout_micros { value: 200000 } num_batch_threads { value: 1 }
        enable_large_batch_splitting { value: true } max_execution_batch_size { value: 4 }
        max_enqueued_batches { value: 2 }
        """,
        BatchingParameters(),
    )
    batcher, servable = Batcher(parameters), Adder()
    yield batcher, servable
    servable.go.set()
    batcher.close()


def test_requests_are_joined_and_each_gets_its_own_answer(served):
    """Eight requests of one row go in fewer runs, none above 4 rows."""
    batcher, servable = served
    servable.go.set()
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda value: ask(batcher, servable, value), range(8)))
    assert answers == [[value + 1] for value in range(8)]
    assert sum(servable.sizes) == 8
    assert len(servable.sizes) < 8
    assert max(servable.sizes) <= 4


def test_a_request_above_the_largest_batch_is_refused(served):
    """One of 5 rows, above what is run together, goes by itself; one of 7 is refused."""
    batcher, servable = served
    servable.go.set()
    assert ask(batcher, servable, *range(5)) == list(range(1, 6))
    with pytest.raises(
        RefusalError, match="Task size 7 is larger than maximum input batch size 6"
    ) as refusal:
        ask(batcher, servable, *range(7))
    assert refusal.value.code == INVALID_ARGUMENT


def test_a_bad_request_does_not_spoil_its_neighbours(served):
    """Joined with a good one, the bad one alone is refused."""
    batcher, servable = served
    servable.go.set()
    with ThreadPoolExecutor(2) as callers:
        good, bad = (callers.submit(ask, batcher, servable, value) for value in (1, -1))
        assert good.result() == [2]
        with pytest.raises(RefusalError, match="must not be negative"):
            bad.result()


def test_a_full_queue_and_a_stopping_server_refuse(served):
    """Requests beyond the queue, and those that wait when the server stops, are refused as UNAVAILABLE."""
    batcher, servable = served
    with ThreadPoolExecutor(3) as callers:
        running = callers.submit(ask, batcher, servable, 1, 2, 3, 4)
        until(lambda: batcher.batches == 1)
        waiting = [callers.submit(ask, batcher, servable, 1, 2, 3, 4, 5, 6) for _ in range(2)]
        until(lambda: sum(queue.size for queue in list(batcher._queues.values())) == 12)
        with pytest.raises(RefusalError, match="queue is full") as refusal:
            ask(batcher, servable, 1)
        assert refusal.value.code == UNAVAILABLE
        threading.Timer(0.2, servable.go.set).start()
        batcher.close()
        assert running.result() == [2, 3, 4, 5]
        for each in waiting:
            with pytest.raises(RefusalError, match="is stopping"):
                each.result()
    with pytest.raises(RefusalError, match="is stopping"):
        ask(batcher, servable, 1)
