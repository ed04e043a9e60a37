"""The artefact against its floors: `python -m benchmarks.artefact [--rows N] [--px N] [--out DIR]`.

    search   in a packed gallery, without the network, against one bare product of the queries with the
             gallery in the layout that it reads best, and the ten largest of each row
    levels   Inception-BN's low level, from decoded pictures, against all three levels

All are timed in one process in turns, so that what else the machine does hits all alike; a figure is the
median of the turns, a ratio the median of the turns' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from rll_tf.data import Preprocessing
from rll_tf.models import embedding_model
from serving.guard import Limits
from serving.precision import PRECISIONS
from serving.search import PackedGallery
from serving.signatures import DEFAULT, signatures

DIM, TOP = 1536, 10
BATCHES = (1, 8, 32)


def unit_vectors(count: int) -> np.ndarray:
    """[count, DIM] float32 of unit norm."""
    vectors = np.random.default_rng(0).normal(size=[count, DIM]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def step(run: Callable[[tf.Tensor], Any], values: tf.Tensor, part: str | int) -> Callable[[], np.ndarray]:
    """One call, until one of its outputs is a NumPy array."""

    def call() -> np.ndarray:
        return run(values)[part].numpy()

    return call


def in_turns(steps: dict[str, Callable[[], np.ndarray]], turns: int) -> dict[str, np.ndarray]:
    """Seconds of each step in each turn: name -> [turns]."""
    seconds = {name: np.empty(turns) for name in steps}
    for turn in range(-2, turns):  # two to warm up
        for name, run in steps.items():
            start = time.perf_counter()
            run()
            if turn >= 0:
                seconds[name][turn] = time.perf_counter() - start
    return seconds


def measure_search(rows: int, turns: int) -> list[dict[str, Any]]:
    """Search in each precision: one row a precision and batch."""
    vectors = unit_vectors(rows)
    arrays = {
        "embeddings": vectors,
        "labels": np.arange(rows) % 1000,
        "paths": np.array([f"pictures/{row}.jpg" for row in range(rows)]),
        "class_names": np.array([f"class {label}" for label in range(1000)]),
    }
    specification = [tf.TensorSpec([None, DIM])]
    columns = tf.Variable(np.ascontiguousarray(vectors.T))
    floor = tf.function(lambda q: tf.math.top_k(tf.matmul(q, columns), TOP), input_signature=specification)
    packed = {precision: PackedGallery(arrays, TOP, precision) for precision in PRECISIONS}
    search = {name: tf.function(each, input_signature=specification) for name, each in packed.items()}
    table = []
    for batch in BATCHES:
        queries = tf.constant(vectors[:: rows // batch][:batch])
        steps = {name: step(run, queries, "ids") for name, run in search.items()}
        steps["floor"] = step(floor, queries, 1)
        table += rows_of(in_turns(steps, turns), "search", batch)
    return table


def measure_levels(px: int, turns: int) -> list[dict[str, Any]]:
    """The low level's signature against `serving_default`, on encoded pictures of the network's size."""
    model = embedding_model("inception_bn", input_shape=(px, px, 3))
    functions = signatures(model, Preprocessing(px, px), Limits())
    run = {
        name: tf.function(functions[name][0], input_signature=[functions[name][1]])
        for name in ("low", DEFAULT)
    }
    table = []
    for batch in (1, 8):
        pixels = np.random.default_rng(0).integers(0, 256, [batch, px, px, 3], np.uint8)
        images = tf.stack([tf.io.encode_jpeg(picture) for picture in pixels])
        steps = {
            "low": step(run["low"], images, "embedding"),
            "floor": step(run[DEFAULT], images, "embedding"),
        }
        table += rows_of(in_turns(steps, turns), "levels", batch)
    return table


def rows_of(seconds: dict[str, np.ndarray], what: str, batch: int) -> list[dict[str, Any]]:
    """Milliseconds of each step and of the one it is measured against, and their ratio."""
    against = seconds.pop("floor")
    return [
        {
            "what": what,
            "name": name,
            "batch": batch,
            "ms": 1000 * float(np.median(values)),
            "against_ms": 1000 * float(np.median(against)),
            "ratio": float(np.median(values / against)),
        }
        for name, values in seconds.items()
    ]


def main() -> None:
    """Measure, print a table and, with --out, write `artefact.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.artefact", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--px", type=int, default=227)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--out", type=Path, help="folder for artefact.json")
    given = parser.parse_args()
    table = measure_search(given.rows, given.turns) + measure_levels(given.px, given.turns)
    print(f"search: {given.rows:,} × {DIM}, top {TOP}, against product and top-k; levels: against all three")
    print("| what | | batch | ms | against, ms | ratio |\n|---|---|---|---|---|---|")
    for row in table:
        print(
            f"| {row['what']} | {row['name']} | {row['batch']} | {row['ms']:.1f} | {row['against_ms']:.1f} "
            f"| {row['ratio']:.2f} |"
        )
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "artefact.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
