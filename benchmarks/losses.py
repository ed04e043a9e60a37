"""Time and memory of every loss beside its peers: `python -m benchmarks.losses [--sizes N ...] [--out DIR]`.

For each N, forward and backward of one batch of N unit embeddings of 512 numbers, classes of three:

    floor     two matrix products, F F' and C F, which a loss on all pairs can't do without
    ours      inside tf.function, as Keras calls it
    addons    TensorFlow Addons 0.23 inside tf.function, in an environment of its own (`make addons`)
    pml       pytorch-metric-learning, with the miner and the settings that make the same loss or the nearest

All take turns in one run on the same threads; the figure is the median. Spectral Clust takes 64 of the 512
numbers where N is not larger than that; the proxies are one per class, their product with the embeddings and
their gradient included. N-pair of Addons is the loss of a similarity matrix that is given. Added memory is
the growth of the peak resident set of a fresh process over its second step.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from benchmarks.loss import DIMENSIONS, batch, floor_step, seconds_of
from benchmarks.memory import peak_bytes
from rll_tf import losses

try:
    import torch
    from pytorch_metric_learning import distances as pml_distances
    from pytorch_metric_learning import losses as pml_losses
    from pytorch_metric_learning import miners as pml_miners
except ImportError:
    torch = None

SIZES = (180, 1024)
TURNS = {180: 15, 1024: 7}
# Steps of seconds take few turns.
LONG_S, FEWEST_TURNS = 2, 2
ADDONS_PYTHON = Path(".venv-addons/bin/python")
ADDONS = ("triplet_semihard", "triplet_hard", "lifted_struct", "npairs", "contrastive")
# Addons' triplet and lifted losses keep several [N², N] arrays.
ADDONS_BYTES_A_TRIPLE = 16
# pytorch-metric-learning's lifted loss takes more than 24 GB at 1,024.
PML_LIFTED_LARGEST = 512
OURS = (*losses.LOSSES, "npairs", "contrastive")
PROXIES = ("proxy_nca", "proxy_anchor")


def inputs(count: int) -> dict[str, np.ndarray]:
    """A batch, N / 2 pairs as a similarity matrix, and distances of N pairs, all with labels."""
    labels, embeddings = batch(count)
    first, second = (embeddings[k::3][: len(embeddings[2::3])] for k in (0, 1))
    apart = np.linalg.norm(embeddings - np.roll(embeddings, 1, axis=0), axis=1)
    return {
        "batch_labels": labels,
        "batch_inputs": embeddings,
        "npairs_labels": np.arange(len(first)),
        "npairs_inputs": first @ second.T,
        "contrastive_labels": (labels == np.roll(labels, 1)).astype(np.float32),
        "contrastive_inputs": apart,
    }


def our_step(name: str, data: dict[str, np.ndarray]) -> Callable[[], object]:
    """One forward and backward pass of ours."""
    kind = name if name in ("npairs", "contrastive") else "batch"
    y, x = tf.constant(data[f"{kind}_labels"]), tf.constant(data[f"{kind}_inputs"])
    classes = int(data["batch_labels"].max()) + 1
    proxies = tf.math.l2_normalize(tf.random.stateless_normal([classes, DIMENSIONS], [0, 0]), axis=1)
    if name == "spectral_clust" and len(x) <= DIMENSIONS:
        x = x[:, :64]
    others = {"npairs": losses.NpairsLoss, "contrastive": losses.ContrastiveLoss}
    loss = {**losses.LOSSES, **others}[name]()

    @tf.function
    def forward_backward(x: tf.Tensor, proxies: tf.Tensor) -> list[tf.Tensor]:
        watched = [x, proxies] if name in PROXIES else [x]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            value = loss(y, tf.matmul(x, proxies, transpose_b=True) if name in PROXIES else x)
        return [value, *(tf.convert_to_tensor(each) for each in tape.gradient(value, watched))]

    return lambda: [each.numpy() for each in forward_backward(x, proxies)]


def pml_step(name: str, data: dict[str, np.ndarray]) -> Callable[[], object] | None:
    """The same of pytorch-metric-learning; None where it has no such loss."""
    if torch is None or (name == "lifted_struct" and len(data["batch_labels"]) > PML_LIFTED_LARGEST):
        return None
    y = torch.from_numpy(data["batch_labels"])
    x = torch.from_numpy(data["batch_inputs"]).requires_grad_()
    classes = int(y.max()) + 1
    dot = pml_distances.DotProductSimilarity(normalize_embeddings=False)
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any] | None]] = {
        "ranked_list": (lambda: pml_losses.RankedListLoss(margin=0.4, Tn=10.0, alpha=1.2), None),
        "triplet_semihard": (
            lambda: pml_losses.TripletMarginLoss(margin=1.0),
            lambda: pml_miners.TripletMarginMiner(margin=1.0, type_of_triplets="semihard"),
        ),
        "triplet_hard": (lambda: pml_losses.TripletMarginLoss(margin=1.0), pml_miners.BatchHardMiner),
        "lifted_struct": (lambda: pml_losses.LiftedStructureLoss(neg_margin=1.0), None),
        "n_pair": (lambda: pml_losses.NPairsLoss(distance=dot), None),
        "contrastive": (pml_losses.ContrastiveLoss, None),
        "multi_similarity": (
            lambda: pml_losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
            pml_miners.MultiSimilarityMiner,
        ),
        "proxy_nca": (lambda: pml_losses.ProxyNCALoss(classes, DIMENSIONS), None),
        "proxy_anchor": (lambda: pml_losses.ProxyAnchorLoss(classes, DIMENSIONS), None),
    }
    if name not in pairs:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its advice on Ranked List Loss's temperature
        make_loss, make_miner = pairs[name]
        loss, miner = make_loss(), None if make_miner is None else make_miner()

    def forward_backward() -> float:
        x.grad = None
        value = loss(x, y) if miner is None else loss(x, y, miner(x, y))
        value.backward()
        return value.item()

    return forward_backward


class Addons:
    """TensorFlow Addons in its own environment, run one step at a time."""

    def __init__(self, data: dict[str, np.ndarray], folder: str) -> None:
        file = Path(folder, f"{len(data['batch_labels'])}.npz")
        np.savez(file, **data)  # type: ignore[arg-type]
        command = [ADDONS_PYTHON, Path(__file__).with_name("losses_addons.py"), file]
        self._process = subprocess.Popen(
            [str(each) for each in command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("TensorFlow Addons' process ended")
        return line

    def __call__(self, word: str) -> float:
        """The seconds of one step of a loss, or with "peak" the peak memory in MB."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def addons_fit(count: int) -> bool:
    """Whether there is memory for Addons' [N², N] arrays."""
    return ADDONS_BYTES_A_TRIPLE * count**3 < os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def time_loss(name: str, data: dict[str, np.ndarray], addons: Addons | None) -> dict[str, float]:
    """The median seconds of the floor and of each implementation, timed in turns."""
    count = len(data["batch_labels"])
    floor, ours, pml = (
        floor_step(tf.constant(data["batch_inputs"])),
        our_step(name, data),
        pml_step(name, data),
    )
    timers: dict[str, Callable[[], float]] = {
        "floor": lambda: seconds_of(floor),
        "ours": lambda: seconds_of(ours),
    }
    if pml is not None:
        timers["pml"] = lambda: seconds_of(pml)
    if addons is not None and name in ADDONS:
        timers["addons"] = lambda: addons(name)
    turns = TURNS.get(count, 3)
    found: dict[str, list[float]] = {method: [] for method in timers}
    for turn in range(turns):
        for method, timer in timers.items():
            if turn >= FEWEST_TURNS and found[method][-1] > LONG_S:
                continue
            timer()
            found[method].append(timer())
    return {method: float(np.median(each)) for method, each in found.items()}


def added_megabytes(name: str, count: int) -> float:
    """By how much two steps of ours raise the peak memory of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_memory, (name, count))


def _measure_memory(name: str, count: int) -> float:
    our_step(name, inputs(72))()  # libraries load and threads start before the first reading
    full = our_step(name, inputs(count))
    before = peak_bytes()
    full()
    full()
    return (peak_bytes() - before) / 1e6


def plot(results: list[dict], file: Path) -> None:
    """Bars of time over the floor's time, a panel for each N."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = sorted({each["n"] for each in results})
    figure, panels = pyplot.subplots(
        1, len(sizes), figsize=(6 * len(sizes), 6), squeeze=False, layout="constrained"
    )
    for axes, size in zip(panels[0], sizes, strict=True):
        rows = [each for each in results if each["n"] == size][::-1]
        for offset, method in ((0.25, "ours"), (0, "pml"), (-0.25, "addons")):
            points = [
                (place + offset, row["seconds"][method] / row["seconds"]["floor"])
                for place, row in enumerate(rows)
                if method in row["seconds"]
            ]
            if points:
                axes.barh(*zip(*points, strict=True), height=0.25, label=method)
        axes.set_yticks(range(len(rows)), [row["loss"] for row in rows])
        axes.set(xscale="log", xlabel="time / time of two matrix products", title=f"N = {size:,}")
        axes.axvline(1, color="black", lw=1)
        axes.grid(axis="x", alpha=0.3)
    panels[0][0].legend(frameon=False)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def main() -> None:
    """Measure, print one table, write it as JSON and draw it."""
    parser = argparse.ArgumentParser(description="Time and memory of every loss beside its peers.")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--losses", nargs="+", choices=OURS, default=OURS)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out the processes that measure memory"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if torch is None:
        print("pytorch-metric-learning is not installed (pip install -r requirements-extras.txt)")
    if not ADDONS_PYTHON.exists():
        print(f"TensorFlow Addons is not installed: make addons (Python 3.9 to 3.11) makes {ADDONS_PYTHON}")
    print(f"TensorFlow {tf.__version__}, {os.cpu_count()} cores, D = {DIMENSIONS}, median of turns")
    print(f"{'N':>5} {'loss':17}  floor ms   ours ms  / floor   pml /  addons /  added MB")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.sizes:
            data = inputs(count)
            addons = Addons(data, folder) if ADDONS_PYTHON.exists() and addons_fit(count) else None
            if addons is None and ADDONS_PYTHON.exists():
                print(f"N = {count}: too little memory for TensorFlow Addons' arrays of N³ numbers")
            for name in arguments.losses:
                seconds = time_loss(name, data, addons)
                memory = None if arguments.no_memory else added_megabytes(name, count)
                results.append({"n": count, "loss": name, "seconds": seconds, "added_mb": memory})
                _print_row(results[-1])
            if addons is not None:
                print(f"TensorFlow Addons' peak memory at N = {count}: {addons('peak'):,.0f} MB")
                addons.close()
    (arguments.out / "losses.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(results, arguments.out / "losses.png")
    print(f"written: {arguments.out / 'losses.json'}, {arguments.out / 'losses.png'}")


def _print_row(row: dict) -> None:
    seconds, ours = row["seconds"], row["seconds"]["ours"]
    peers = [f"{seconds[each] / ours:.1f}" if each in seconds else "" for each in ("pml", "addons")]
    added = "" if row["added_mb"] is None else f"{row['added_mb']:.0f}"
    print(
        f"{row['n']:5} {row['loss']:17} {seconds['floor'] * 1e3:9.2f} {ours * 1e3:9.2f} "
        f"{ours / seconds['floor']:8.2f} {peers[0]:>7} {peers[1]:>9} {added:>9}",
        flush=True,
    )


if __name__ == "__main__":
    main()
