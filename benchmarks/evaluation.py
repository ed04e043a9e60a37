"""Retrieval metrics and k-means at the size of Stanford Online Products: `python -m benchmarks.evaluation`.

Embeddings [n, width] of unit norm in classes of one to twelve, 5.3 on average, their variance falling from
dimension to dimension as that of trained networks does. Every method searches all of them for all of them:

    products, NumPy       blocked float32 matrix products, nothing kept
    products, TensorFlow  the same
    products, top k       and the 12 largest of each row
    ours                  `retrieval_metrics` with Recall@1, 10, 100 and 1000, MAP@R and R-precision
    faiss, inner product  `IndexFlatIP`, 12 neighbours
    faiss, L2             `IndexFlatL2`, 12 neighbours
    peer                  pytorch-metric-learning's `AccuracyCalculator`: precision@1, MAP@R, R-precision

The floor is the faster of the bare products. A method runs in a process of its own, in turns; its time is
that of the work alone, without imports and reading, a ratio the median of each turn's to the floor of the
same turn, the memory the process's peak, libraries and embeddings included.

Then k-means as `retrieval_metrics` does it for that many classes, with either library, for one and for two
rounds; the whole is estimated from these and marked so.

faiss, PyTorch and pytorch-metric-learning are left out where they are not installed (the extra `bench`).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.memory import in_fresh_process, peak_bytes

RECALL_AT = (1, 10, 100, 1000)
TOP = 12
CELLS = 2**25  # of a block, as ours
Metrics = Mapping[str, float]


def write_embeddings(folder: Path, count: int, width: int) -> None:
    """`embeddings.npy` and `labels.npy`."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(count), rng.integers(2, 10, count))[:count]
    spread = (1 + np.arange(width, dtype=np.float32)) ** -0.4
    centres = rng.standard_normal((labels[-1] + 1, width), np.float32)
    embeddings = (centres[labels] + 1.6 * rng.standard_normal((count, width), np.float32)) * spread
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    order = rng.permutation(count)
    np.save(folder / "embeddings.npy", embeddings[order])
    np.save(folder / "labels.npy", labels[order])


def products_numpy(embeddings: np.ndarray, labels: np.ndarray) -> Metrics:
    """Blocks of queries times all."""
    block = max(1, CELLS // len(embeddings))
    for start in range(0, len(embeddings), block):
        embeddings[start : start + block] @ embeddings.T
    return {}


def products_tensorflow(embeddings: np.ndarray, labels: np.ndarray, top: int | None = None) -> Metrics:
    """Blocks of queries times all, and of each row the largest."""
    import tensorflow as tf

    block = max(1, CELLS // len(embeddings))
    everything = tf.constant(embeddings)
    for start in range(0, len(embeddings), block):
        products = tf.matmul(everything[start : start + block], everything, transpose_b=True)
        if top is not None:
            tf.math.top_k(products, top)
    return {}


def products_top(embeddings: np.ndarray, labels: np.ndarray) -> Metrics:
    """And the largest of each row."""
    return products_tensorflow(embeddings, labels, TOP)


def ours(embeddings: np.ndarray, labels: np.ndarray) -> Metrics:
    """`retrieval_metrics`."""
    from rll_tf.evaluation import retrieval_metrics

    return retrieval_metrics(embeddings, labels, RECALL_AT, clustering=False)


def faiss_inner(embeddings: np.ndarray, labels: np.ndarray) -> Metrics:
    """A flat index by inner product."""
    import faiss

    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(embeddings)
    index.search(embeddings, TOP)
    return {}


def faiss_l2(embeddings: np.ndarray, labels: np.ndarray) -> Metrics:
    """A flat index by Euclidean distance."""
    import faiss

    index = faiss.IndexFlatL2(embeddings.shape[1])
    index.add(embeddings)
    index.search(embeddings, TOP)
    return {}


def peer(embeddings: np.ndarray, labels: np.ndarray) -> Metrics:
    """AccuracyCalculator."""
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    names = {
        "precision_at_1": "recall@1",
        "mean_average_precision_at_r": "map@r",
        "r_precision": "r_precision",
    }
    calculator = AccuracyCalculator(include=tuple(names), k="max_bin_count", device=torch.device("cpu"))
    found = calculator.get_accuracy(embeddings, labels)
    return {name: float(found[theirs]) for theirs, name in names.items()}


METHODS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], Metrics], tuple[str, ...]]] = {
    "products, NumPy": (products_numpy, ()),
    "products, TensorFlow": (products_tensorflow, ("tensorflow",)),
    "products, top k": (products_top, ("tensorflow",)),
    "ours": (ours, ("rll_tf.evaluation",)),
    "faiss, inner product": (faiss_inner, ("faiss",)),
    "faiss, L2": (faiss_l2, ("faiss",)),
    "peer": (peer, ("faiss", "torch", "pytorch_metric_learning")),
}
BARE = ("products, NumPy", "products, TensorFlow")


def run_method(name: str, folder: str) -> dict[str, Any]:
    """One turn, in a process of its own."""
    method, packages = METHODS[name]
    for package in packages:
        importlib.import_module(package)
    embeddings, labels = (np.load(Path(folder, f"{each}.npy")) for each in ("embeddings", "labels"))
    method(embeddings[:100], labels[:100])  # threads have started
    began = time.perf_counter()
    metrics = dict(method(embeddings, labels))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_mb": peak_bytes() / 1e6, "metrics": metrics}


def run_kmeans(library: str, folder: str, clusters: int) -> dict[str, Any]:
    """Seconds of one and of two rounds, and the whole estimated from them, in a process of its own."""
    from rll_tf.evaluation import clustering

    embeddings = np.load(Path(folder, "embeddings.npy"))
    seconds = []
    for rounds in (1, 2):
        with contextlib.ExitStack() as patches:
            patches.enter_context(mock.patch.object(clustering, "ITERATIONS", rounds))
            patches.enter_context(mock.patch.object(clustering, "MANY", 0))
            if library != "faiss":
                patches.enter_context(mock.patch("importlib.util.find_spec", return_value=None))
            began = time.perf_counter()
            clustering.cluster(embeddings, clusters)
            seconds.append(time.perf_counter() - began)
    a_round = seconds[1] - seconds[0]
    return {
        "one_round_s": seconds[0],
        "two_rounds_s": seconds[1],
        "estimated_whole_s": seconds[0] + (clustering.ITERATIONS - 1) * a_round,
        "rounds": clustering.ITERATIONS,
        "peak_mb": peak_bytes() / 1e6,
    }


def measure(count: int, width: int, clusters: int, turns: int, kmeans: bool) -> dict[str, Any]:
    """Every method at one size."""
    names = [
        name
        for name, (_, packages) in METHODS.items()
        if all(importlib.util.find_spec(package) for package in packages)
    ]
    found: dict[str, list[dict[str, Any] | None]] = {name: [] for name in names}
    libraries = [
        name for name in ("faiss", "scikit-learn") if name != "faiss" or importlib.util.find_spec(name)
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_embeddings(Path(folder), count, width)
        for _ in range(turns):
            for name in names:
                found[name].append(in_fresh_process(run_method, name, folder))
        clusterings = {
            library: in_fresh_process(run_kmeans, library, folder, clusters)
            for library in libraries
            if kmeans
        }
    floors = [min(found[name][turn]["seconds"] for name in BARE) for turn in range(turns)]  # type: ignore[index]
    rows = {}
    for name, answers in found.items():
        whole = [(each, floor) for each, floor in zip(answers, floors, strict=True) if each is not None]
        rows[name] = whole and {
            "seconds": statistics.median(each["seconds"] for each, _ in whole),
            "to_floor": statistics.median(each["seconds"] / floor for each, floor in whole),
            "peak_mb": max(each["peak_mb"] for each, _ in whole),
            "metrics": whole[0][0]["metrics"],
        }
    return {"count": count, "width": width, "clusters": clusters, "methods": rows, "k_means": clusterings}


def main() -> None:
    """Measure, print tables, and write JSON if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 60_502])
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--clusters", type=int, default=11_316, help="of k-means, at the largest size")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--no-k-means", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = []
    for size in arguments.sizes:
        kmeans = size == max(arguments.sizes) and not arguments.no_k_means
        result = measure(size, arguments.width, arguments.clusters, arguments.turns, kmeans)
        show(result)
        results.append(result)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"cores": len(os.sched_getaffinity(0)), "results": results}, indent=2)
        (arguments.out / "evaluation.json").write_text(text + "\n", encoding="utf-8")


def show(result: dict[str, Any]) -> None:
    """Print one size's tables."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{result['count']:,} × {result['width']:,}, {cores} cores, load {load:.1f}")
    print(f"{'':22}{'seconds':>9} {'to products':>12} {'peak MB':>9}")
    for name, row in result["methods"].items():
        if row:
            print(f"{name:22}{row['seconds']:9.2f} {row['to_floor']:12.2f} {row['peak_mb']:9.0f}")
        else:
            print(f"{name:22}{'did not end, perhaps out of memory':>32}")
    mine, theirs = result["methods"]["ours"], result["methods"].get("peer")
    if mine:
        print("ours: " + ", ".join(f"{name} {value:.4f}" for name, value in mine["metrics"].items()))
    if mine and theirs:
        apart_by = max(abs(value - mine["metrics"][name]) for name, value in theirs["metrics"].items())
        print(f"the peer's differ by at most {apart_by:.1e}")
    for library, row in result["k_means"].items():
        if row:
            print(
                f"k-means, {result['clusters']:,} clusters, {library}: one round {row['one_round_s']:.1f} s, "
                f"two {row['two_rounds_s']:.1f} s; {row['rounds']} rounds ESTIMATED from these: "
                f"{row['estimated_whole_s'] / 60:.1f} min; peak {row['peak_mb']:.0f} MB"
            )
    for package in ("faiss", "pytorch_metric_learning"):
        if importlib.util.find_spec(package) is None:
            print(f"{package} was left out: it is not installed")


if __name__ == "__main__":
    main()
