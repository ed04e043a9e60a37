"""Time and memory of Ranked List Loss: `python -m benchmarks.loss [--sizes N ...] [--methods M ...]`.

For each N, forward and backward of one batch of N embeddings of 512 numbers, as the loss sees them
half-way through training: classes of three, noise about as wide as the classes are apart, unit norm.

    floor        the two matrix products that no implementation can do without: F F' and C F
    eager        ours, called eagerly
    graph        ours inside tf.function, as Keras calls it
    blocked      the same with blocks of 256 queries
    xla          ours inside tf.function(jit_compile=True), Keras's default where there is a GPU
    float64      ours inside tf.function, of the same embeddings in float64
    metrics      the four of `mining_metrics`, which `compile` adds to the graph
    autodiff     the same formula in TensorFlow operations, differentiated by TensorFlow
    peer         pytorch-metric-learning's RankedListLoss, same alpha, m and T, same threads

All are timed in one process in turns, so that what else the machine does hits all alike; the figure is the
median of the calls. A turn of small batches is a call that is not timed, while the threads of the method
before go to sleep, and then several that are. The first call traces and compiles. Added memory is the growth
of the peak resident set of a fresh process from before its first step to after its second. Batches beyond
16,384 are timed once, and only the floor and the graph.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from benchmarks.memory import peak_bytes
from rll_tf.losses import mining_metrics, ranked_list_loss

try:
    import torch
    from pytorch_metric_learning.losses import RankedListLoss as PeerLoss
except ImportError:
    torch = None

SIZES = (180, 1024, 4096, 16384)
DIMENSIONS = 512
TURNS = {180: 31, 1024: 15, 4096: 7, 16384: 3}
CALLS_A_TURN = {180: 10, 1024: 3}
# These keep some 20 N x N arrays: 21 GB at 16,384.
LARGEST_DENSE = 4096
LARGEST_COMPARED = 16384
METHODS = ("floor", "eager", "graph", "blocked", "xla", "float64", "metrics", "autodiff", "peer")
PARAMETERS: dict[str, Any] = {"alpha": 1.2, "margin": 0.4, "temperature": 10.0}


def batch(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of classes of three and unit embeddings, positives about 0.9 apart and negatives 1.3."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) // 3
    embeddings = rng.normal(size=[count // 3 + 1, DIMENSIONS])[labels] * 1.2
    embeddings += rng.normal(size=[count, DIMENSIONS]) + rng.normal(size=DIMENSIONS) * 0.5
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return labels, embeddings.astype(np.float32)


def step(method: str, count: int) -> Callable[[], object] | None:
    """One forward and backward pass by `method`; None where it is not to be had at this size."""
    if count > LARGEST_DENSE and method in ("autodiff", "peer"):
        return None
    if count > LARGEST_COMPARED and method not in ("floor", "graph"):
        return None
    labels, embeddings = batch(count)
    if method == "peer":
        return _peer_step(labels, embeddings) if torch is not None else None
    y, x = tf.constant(labels), tf.constant(embeddings, tf.float64 if method == "float64" else tf.float32)
    if method == "floor":
        return floor_step(x)
    if method == "metrics":
        return _metrics_step(y, x)
    function = _autodiff if method == "autodiff" else _ours(256 if method == "blocked" else None)
    if method != "eager":
        function = tf.function(function, jit_compile=method == "xla")
    return lambda: [each.numpy() for each in function(y, x)]


def floor_step(x: tf.Tensor) -> Callable[[], object]:
    """The two matrix products."""
    coefficients = tf.random.uniform([len(x), len(x)]) if len(x) <= LARGEST_DENSE else None
    if coefficients is not None:
        products = tf.function(lambda: (tf.matmul(x, x, transpose_b=True), tf.matmul(coefficients, x)))
        return lambda: [each.numpy() for each in products()]

    @tf.function
    def in_rows() -> tf.Tensor:
        # The first product's rows serve as the second's coefficients, so that neither is left out.
        blocks = (x[start : start + 1024] for start in range(0, len(x), 1024))
        return tf.concat([tf.matmul(tf.matmul(block, x, transpose_b=True), x) for block in blocks], axis=0)

    return lambda: in_rows().numpy()


def _ours(block_size: int | None) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    def function(y: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(ranked_list_loss(y, x, block_size=block_size, **PARAMETERS))
        return loss, tape.gradient(loss, x)

    return function


def _metrics_step(y: tf.Tensor, x: tf.Tensor) -> Callable[[], object]:
    metrics = mining_metrics(PARAMETERS["alpha"], PARAMETERS["margin"])
    update = tf.function(lambda: [metric.update_state(y, x) for metric in metrics] and metrics[0].total.value)
    return lambda: update().numpy()


def _autodiff(y: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(x)
        squares = tf.reduce_sum(tf.square(x), axis=1)
        squares = squares[:, None] + squares[None, :] - 2 * tf.matmul(x, x, transpose_b=True)
        distances = tf.sqrt(tf.maximum(squares, 1e-12))
        same = y[:, None] == y[None, :]
        outside, inside = distances - 0.8, 1.2 - distances
        positive = tf.cast(tf.linalg.set_diag(same, tf.zeros(len(y), tf.bool)) & (outside > 0), x.dtype)
        negative = tf.cast(~same & (inside > 0), x.dtype)
        weights = tf.stop_gradient(tf.exp(10.0 * inside) * negative)
        loss = tf.reduce_mean(
            tf.math.divide_no_nan(tf.reduce_sum(positive * outside, 1), tf.reduce_sum(positive, 1))
            + tf.math.divide_no_nan(tf.reduce_sum(weights * inside, 1), tf.reduce_sum(weights, 1))
        )
    return loss, tape.gradient(loss, x)


def _peer_step(labels: np.ndarray, embeddings: np.ndarray) -> Callable[[], float]:
    torch.set_num_threads(os.cpu_count() or 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its advice against T above 5
        loss = PeerLoss(margin=PARAMETERS["margin"], Tn=PARAMETERS["temperature"], alpha=PARAMETERS["alpha"])
    y, x = torch.from_numpy(labels), torch.from_numpy(embeddings).requires_grad_()

    def forward_backward() -> float:
        x.grad = None
        value = loss(x, y)
        value.backward()
        return value.item()

    return forward_backward


def time_all(count: int, methods: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """The median seconds of each method, all timed in turns, and those of their first calls."""
    steps = {method: step(method, count) for method in methods}
    known = {method: each for method, each in steps.items() if each is not None}
    calls = CALLS_A_TURN.get(count, 0)
    seconds: dict[str, list[float]] = {method: [] for method in known}
    first = {method: seconds_of(each) for method, each in known.items()}
    for _ in range(TURNS.get(count, 1)):
        for method, each in known.items():
            if calls:
                each()
            for _ in range(calls or 1):
                seconds[method].append(seconds_of(each))
    return {method: float(np.median(each)) for method, each in seconds.items()}, first


def seconds_of(function: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def added_megabytes(method: str, count: int) -> float | None:
    """By how much two steps raise the peak memory of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_memory, (method, count))


def _measure_memory(method: str, count: int) -> float | None:
    small = step(method, 60)  # libraries load and threads start before the first reading
    if small is not None:
        small()
    full = step(method, count)
    if full is None:
        return None
    before = peak_bytes()
    full()
    full()
    return (peak_bytes() - before) / 1e6


def agreement(count: int) -> float | None:
    """The largest relative difference between the peer's value and ours: its epsilon, and rounding."""
    if torch is None:
        return None
    labels, embeddings = batch(count)
    theirs = _peer_step(labels, embeddings)()
    # Its convex combination of the two parts is half their sum.
    ours = float(tf.reduce_mean(ranked_list_loss(labels, embeddings, **PARAMETERS))) / 2
    return abs(theirs - ours) / ours


def plot(results: list[dict], file: Path) -> None:
    """Time over the floor's time against N, one line per method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), constrained_layout=True)
    for method in METHODS:
        points = [(each["n"], each["seconds"][method] / each["seconds"]["floor"]) for each in results
                  if method in each["seconds"]]  # fmt: skip
        if points:
            width = 1 if method == "floor" else 2
            axes.plot(*zip(*points, strict=True), marker="o", label=method, lw=width)
    axes.set(xscale="log", yscale="log", xlabel="batch size N", ylabel="time / time of two matrix products")
    axes.set_xticks([each["n"] for each in results], [f"{each['n']:,}" for each in results], minor=False)
    ratios = (0.5, 1, 1.5, 2, 3, 5, 8, 12)
    axes.set_yticks(ratios, [f"{each:g}" for each in ratios], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def main() -> None:
    """Measure, print one table, write it as JSON and draw it."""
    parser = argparse.ArgumentParser(description="Time and memory of Ranked List Loss.")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out the processes that measure memory"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if torch is None:
        print("pytorch-metric-learning is not installed (pip install -r requirements-extras.txt): no peer")
    print(f"TensorFlow {tf.__version__}, {os.cpu_count()} cores, D = {DIMENSIONS}, median of turns")
    print(f"{'N':>6} {'method':9} {'ms':>9} {'/ floor':>8} {'peer /':>8} {'first s':>8} {'added MB':>9}")
    results = []
    for count in arguments.sizes:
        seconds, first = time_all(count, ["floor", *(each for each in arguments.methods if each != "floor")])
        memory = {}
        for method, taken in seconds.items():
            memory[method] = None if arguments.no_memory else added_megabytes(method, count)
            peer = f"{seconds['peer'] / taken:8.2f}" if "peer" in seconds else " " * 8
            added = "" if memory[method] is None else f"{memory[method]:9.0f}"
            print(
                f"{count:6} {method:9} {taken * 1e3:9.2f} {taken / seconds['floor']:8.2f} {peer} "
                f"{first[method]:8.2f} {added}",
                flush=True,
            )
        results.append({"n": count, "seconds": seconds, "first_seconds": first, "added_mb": memory})
    difference = agreement(180)
    if difference is not None:
        print(f"largest relative difference to the peer's value at N = 180: {difference:.1e}")
    (arguments.out / "loss.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(results, arguments.out / "loss.png")
    print(f"written: {arguments.out / 'loss.json'}, {arguments.out / 'loss.png'}")


if __name__ == "__main__":
    main()
