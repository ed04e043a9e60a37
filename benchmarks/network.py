"""Pictures a second of networks with three levels: `python -m benchmarks.network [--batch N]`.

    inception_bn         the paper's, batch norm in training mode
    efficientnet_lite0   batch norm frozen, as in fine-tuning from ImageNet

And of each:

    inference   pictures to embeddings
    training    forward, three Ranked List Losses, backward, update, as `fit` does them
    torch       the same network in PyTorch, see `network_peer.py`; left out where PyTorch is missing

Each in each precision, as a graph and with XLA, timed in one process in turns, so that what else the machine
does hits all alike; the figure is the median of the turns. Operations are those of convolutions and dense
layers, a multiplication and an addition counting as two; a training step is taken to need three times those
of inference: one product forward, two backward. The machine's rate is that of a float32 matrix product of
2,048 × 2,048 timed in the same turns, and a method's share is what it reaches of that rate.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with contextlib.suppress(ImportError):
    # PyTorch's SGD loads it, which ends the process once TensorFlow is loaded.
    importlib.import_module("torch._dynamo")

import keras
import numpy as np
import tensorflow as tf

from benchmarks import network_peer
from rll_tf.models.caffe_layers import Kernel
from rll_tf.training import Settings, build
from rll_tf.training.settings import PRECISIONS

BACKBONES_PX = {"inception_bn": 227, "efficientnet_lite0": 224}
PRODUCT_SIDE = 2048
TRAINING_FACTOR = 3


def operations(model: keras.Model) -> int:
    """Floating-point operations of one picture's way through the convolutions and dense layers.

    The output of a 1×1 convolution that runs with its siblings is its kernel: its cells are its input's.
    """
    total = 0
    for layer in model.layers:
        if type(layer) is Kernel:
            cells = math.prod(layer.input.shape[1:3])
        elif isinstance(layer, Kernel | keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            cells = math.prod(layer.output.shape[1:3])
        elif isinstance(layer, keras.layers.Dense):
            cells = 1
        else:
            continue
        total += 2 * cells * math.prod(layer.kernel.shape)
    return total


def methods(
    backbone: str, px: int, batch: int, precisions: list[str], xla: list[bool]
) -> dict[str, Callable[[], Any]]:
    """What is timed: name -> one step of it."""
    rng = np.random.default_rng(0)
    array = rng.uniform(-120, 130, [batch, px, px, 3]).astype(np.float32)
    classes = np.arange(batch) // 2
    pictures = tf.constant(array)
    matrix = tf.constant(rng.normal(size=[PRODUCT_SIDE, PRODUCT_SIDE]), tf.float32)
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)))
    steps: dict[str, Callable[[], Any]] = {"product": lambda: product().numpy()}
    for precision in precisions:
        for jit in xla:
            model = build(
                Settings(
                    backbone=backbone,
                    freeze_batch_norm=backbone != "inception_bn",
                    input_px=px,
                    learning_rate=1e-3,
                    weight_decay=1e-5,
                    new_layers_rate=10.0,
                    precision=precision,
                    jit=jit,
                )
            )
            labels = dict.fromkeys(model.output_names, classes)
            name = f"{precision}{' xla' if jit else ''}"
            steps[f"inference {name}"] = _inference(model, pictures, jit)
            steps[f"training {name}"] = _training(model, pictures, labels)
    if network_peer.torch is not None:
        steps |= network_peer.peer_steps(backbone, array, classes)
    return steps


def _inference(model: keras.Model, pictures: tf.Tensor, jit: bool) -> Callable[[], Any]:
    @tf.function(jit_compile=jit)
    def run() -> dict[str, tf.Tensor]:
        return model(pictures, training=False)

    def step() -> np.ndarray:
        return run()["high"].numpy()

    return step


def _training(model: keras.Model, pictures: tf.Tensor, labels: dict[str, np.ndarray]) -> Callable[[], Any]:
    return lambda: model.train_on_batch(pictures, labels)


def measure(
    backbone: str, px: int, batch: int, turns: int, precisions: list[str], xla: list[bool]
) -> dict[str, Any]:
    """Time all methods: `{"operations": …, "product_rate": …, "methods": {name: {…}}}`."""
    steps = methods(backbone, px, batch, precisions, xla)
    for step in steps.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    rate = 2 * PRODUCT_SIDE**3 / medians.pop("product")
    count = operations(build(Settings(backbone=backbone, input_px=px)))
    rows = {}
    for name, median in medians.items():
        per_picture = count * (TRAINING_FACTOR if name.startswith("training") else 1)
        speed = batch / median
        rows[name] = {"pictures_per_second": speed, "share": speed * per_picture / rate}
    return {"px": px, "batch": batch, "operations": count, "product_rate": rate, "methods": rows}


def main() -> None:
    """Measure, print a table and, with --out, write `network.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network", description=__doc__.split("\n")[0])
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES_PX, default=list(BACKBONES_PX))
    parser.add_argument("--px", type=int, help="side of the pictures [227, or 224 for efficientnet_lite0]")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    fast = [precision for precision in PRECISIONS if precision != "float64"]
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=fast)
    parser.add_argument("--no-xla", action="store_true", help="leave XLA out")
    parser.add_argument("--out", type=Path, help="folder for network.json")
    given = parser.parse_args()
    xla = [False] if given.no_xla else [False, True]
    if network_peer.torch is None:
        print("torch is not installed: the peer is left out")
    results = {}
    for backbone in given.backbones:
        px = given.px or BACKBONES_PX[backbone]
        result = measure(backbone, px, given.batch, given.turns, given.precisions, xla)
        results[backbone] = result
        print(f"{backbone}: {result['operations'] / 1e9:.2f} GFLOP a picture at {px} px, batch {given.batch}")
        print(f"matrix product: {result['product_rate'] / 1e9:.0f} GFLOP/s")
        for name, row in result["methods"].items():
            print(f"{name:32} {row['pictures_per_second']:8.1f} pictures/s  {row['share']:6.1%} of that rate")
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "network.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
