"""Server-side batching: requests that arrive close together go through the network as one."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.development.refusal import INTERNAL, INVALID_ARGUMENT, UNAVAILABLE, RefusalError
from serving.development.servable import Servable

# TensorFlow Serving's own defaults.
MAX_BATCH_SIZE, TIMEOUT_MICROS, MAX_ENQUEUED_BATCHES = 1000, 0, 10


@dataclasses.dataclass
class _Task:
    inputs: Mapping[str, np.ndarray]
    size: int
    arrived: float
    answer: concurrent.futures.Future[dict[str, np.ndarray]]


@dataclasses.dataclass
class _Queue:
    servable: Servable
    signature: str
    wanted: tuple[str, ...]
    tasks: deque[_Task] = dataclasses.field(default_factory=deque)

    @property
    def size(self) -> int:
        return sum(task.size for task in self.tasks)


class Batcher:
    """Runs requests of one version, one signature, the same outputs and the same shapes together.

    A batch is run as soon as it holds `max_batch_size` rows (with `enable_large_batch_splitting`,
    `max_execution_batch_size`), or its first request has waited for `batch_timeout_micros`, and one of
    `num_batch_threads` threads is free. With more than `max_enqueued_batches` batches waiting, further
    requests are refused as UNAVAILABLE, one of more than `max_batch_size` rows as INVALID_ARGUMENT. What
    TensorFlow Serving would split is run whole, by itself. Other parameters change nothing here.

    Where the graph refuses a batch, its requests are run one by one, so that each gets its own answer.
    (TensorFlow Serving answers all of them with the error.)

    Args:
        parameters: a `BatchingParameters` message.
    """

    def __init__(self, parameters: Any) -> None:
        def number(field: str, default: int) -> int:
            value = getattr(parameters, field).value if parameters.HasField(field) else default
            if value < (0 if field == "batch_timeout_micros" else 1):
                raise ValueError(f"batching parameters: {field} must be positive; got {value}")
            return int(value)

        self._largest = self._max_batch = number("max_batch_size", MAX_BATCH_SIZE)
        if parameters.enable_large_batch_splitting.value:
            self._max_batch = number("max_execution_batch_size", self._largest)
        self._timeout_s = number("batch_timeout_micros", TIMEOUT_MICROS) / 1e6
        self._most_waiting = number("max_enqueued_batches", MAX_ENQUEUED_BATCHES) * self._max_batch
        self._queues: dict[Any, _Queue] = {}
        self._changed = threading.Condition()
        self._closed = False
        self.batches = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"batching-{index}", daemon=True)
            for index in range(number("num_batch_threads", 1))
        ]
        for thread in self._threads:
            thread.start()

    def run(
        self, servable: Servable, signature: str, inputs: Mapping[str, np.ndarray], wanted: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """Wait for the answer to one request, which goes with others.

        Raises:
            RefusalError: the request is refused, or too many wait.
        """
        sizes = {len(value) if value.ndim else -1 for value in inputs.values()}
        if len(sizes) != 1 or -1 in sizes:
            raise RefusalError(
                INVALID_ARGUMENT, "batched inputs must have one first dimension, the batch's; "
                f"got shapes {', '.join(str(value.shape) for value in inputs.values())}"
            )  # fmt: skip
        task = _Task(inputs, sizes.pop(), time.monotonic(), concurrent.futures.Future())
        if task.size > self._largest:
            raise RefusalError(
                INVALID_ARGUMENT,
                f"Task size {task.size} is larger than maximum input batch size {self._largest}",
            )
        # The version is part of the key by identity: its number may come again with another model.
        shapes = tuple(sorted((name, value.dtype.str, value.shape[1:]) for name, value in inputs.items()))
        key = (id(servable), signature, wanted, shapes)
        with self._changed:
            if self._closed:
                raise RefusalError(UNAVAILABLE, "the server is stopping")
            if sum(queue.size for queue in self._queues.values()) >= self._most_waiting:
                raise RefusalError(UNAVAILABLE, "the batching queue is full")
            if key not in self._queues:
                self._queues[key] = _Queue(servable, signature, wanted)
            self._queues[key].tasks.append(task)
            self._changed.notify()
        return task.answer.result()

    def close(self) -> None:
        """Refuse what waits, and end the threads."""
        with self._changed:
            self._closed = True
            waiting = [task for queue in self._queues.values() for task in queue.tasks]
            self._queues.clear()
            self._changed.notify_all()
        for task in waiting:
            task.answer.set_exception(RefusalError(UNAVAILABLE, "the server is stopping"))
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while True:
                    if self._closed:
                        return
                    taken, wait_s = self._take()
                    if taken is not None:
                        break
                    self._changed.wait(wait_s)
                self.batches += 1
            _answer(*taken)

    def _take(self) -> tuple[tuple[_Queue, list[_Task]] | None, float | None]:
        """The next batch, or how many seconds to wait for one; under the lock."""
        now, wait_s = time.monotonic(), None
        for key, queue in sorted(self._queues.items(), key=lambda item: item[1].tasks[0].arrived):
            left_s = queue.tasks[0].arrived + self._timeout_s - now
            if left_s > 0 and queue.size < self._max_batch:
                wait_s = left_s if wait_s is None else min(wait_s, left_s)
                continue
            batch = [queue.tasks.popleft()]
            size = batch[0].size
            while queue.tasks and size + queue.tasks[0].size <= self._max_batch:
                size += queue.tasks[0].size
                batch.append(queue.tasks.popleft())
            if not queue.tasks:
                del self._queues[key]
            return (queue, batch), None
        return None, wait_s


def _answer(queue: _Queue, batch: list[_Task]) -> None:
    try:
        if len(batch) == 1:
            batch[0].answer.set_result(queue.servable.run(queue.signature, batch[0].inputs, queue.wanted))
            return
        joined = {name: np.concatenate([task.inputs[name] for task in batch]) for name in batch[0].inputs}
        outputs = queue.servable.run(queue.signature, joined, queue.wanted)
        parts = _split(outputs, [task.size for task in batch])
    except RefusalError as refusal:
        if len(batch) == 1:
            batch[0].answer.set_exception(refusal)
            return
        for task in batch:
            _answer(queue, [task])
    except Exception as error:  # the callers wait for an answer, whatever happens
        for task in batch:
            task.answer.set_exception(RefusalError(INTERNAL, str(error)))
    else:
        for task, part in zip(batch, parts, strict=True):
            task.answer.set_result(part)


def _split(outputs: Mapping[str, np.ndarray], sizes: list[int]) -> list[dict[str, np.ndarray]]:
    ends = np.cumsum(sizes)
    for name, value in outputs.items():
        if value.ndim == 0 or len(value) != ends[-1]:
            raise RefusalError(
                INVALID_ARGUMENT,
                f"output {name} must have the batch's {ends[-1]} rows first; it has shape {value.shape}",
            )
    return [
        {name: value[end - size : end] for name, value in outputs.items()}
        for size, end in zip(sizes, ends, strict=True)
    ]
