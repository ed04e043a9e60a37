"""Pictures a second of the training pipeline: `python -m benchmarks.data [--pictures N] [--out DIR]`.

JPEG pictures of 500 × 375 px, smooth colours with noise (about 58 kB each),
in classes of eight, go through the paper's preprocessing: resized to 256 × 256, cropped to 227 × 227, every
second one mirrored, in batches of 60 × 3.

    floor       reading and decoding alone, on the same threads
    memory      `training_batches` as it comes: resized pictures in memory, as sets of up to 2 GiB are kept
    disk        larger sets with `--cache`: resized pictures on disk
    anew        larger sets without: every picture decoded for every batch
    scaled      the same with the 2020 release's crops of random scale and aspect
    peer        PyTorch's DataLoader with Pillow doing anew's work, a worker process a core

All are timed in one process in turns, so that what else the machine does hits all alike; a figure is the
median of the turns, a ratio the median of each turn's ratio to the floor of the same turn.

Last, the sampler alone at 10 million pictures in 1 million classes, in a fresh process: seconds until the
first batch, milliseconds a batch of 60 × 3 and for the first batch of the next epoch, and the growth of the
peak resident set from before the sampler is built, when libraries and labels are loaded already.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks.memory import in_fresh_process, peak_bytes
from rll_tf.data import (
    Augmentation,
    Catalogue,
    PictureCache,
    Preprocessing,
    class_balanced_batches,
    open_dataset,
    training_batches,
)

try:
    import torch
except ImportError:
    torch = None

WIDTH, HEIGHT = 500, 375
PREPROCESSING = Preprocessing(227, 256, mean=(104, 117, 123), scale=1, bgr=True)
CLASSES, IMAGES = 60, 3
TURNS, BATCHES = 3, 4  # batches a turn, after one that is not timed
SAMPLER_PICTURES, SAMPLER_CLASSES, SAMPLER_BATCHES = 10_000_000, 1_000_000, 1000
CORES = len(os.sched_getaffinity(0))


def write_pictures(folder: Path, count: int) -> Catalogue:
    """`count` JPEG files in classes of eight."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, [12, 16, 3], np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        pixels = (smooth + rng.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8)
        file = folder / f"{number // 8:04d}" / f"{number % 8}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file, quality=85)
    return open_dataset(f"folder:{folder}")


def floor(catalogue: Catalogue) -> Iterator[Any]:
    """Batches of decoded pictures' sizes: nothing but reading and decoding."""
    paths = tf.constant([os.fsencode(path) for path in catalogue.paths])

    def decode(index: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_jpeg(tf.io.read_file(paths[index]), 3, dct_method="INTEGER_ACCURATE")
        return tf.shape(pixels)

    indices = tf.data.Dataset.range(len(catalogue)).shuffle(len(catalogue), seed=0).repeat()
    dataset = indices.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(dataset.batch(CLASSES * IMAGES).prefetch(tf.data.AUTOTUNE))


def ours(catalogue: Catalogue, **options: Any) -> Iterator[Any]:
    """Batches of `training_batches`."""
    scaled = options.pop("scaled", False)
    sampler = class_balanced_batches(catalogue.labels, CLASSES, IMAGES, seed=0)
    augmentation = Augmentation(mirror=True, scale_and_aspect=scaled)
    return iter(training_batches(catalogue, sampler, PREPROCESSING, augmentation, ["high"], **options))


class PeerDataset:
    """What a PyTorch user writes for the same work, picture by picture."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.paths, self.labels = catalogue.paths, catalogue.labels
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.open(self.paths[index]).convert("RGB")
        image = image.resize((PREPROCESSING.resize_px,) * 2, Image.Resampling.BILINEAR)
        top, left = self.rng.integers(0, PREPROCESSING.resize_px - PREPROCESSING.input_px + 1, 2).tolist()
        image = image.crop((left, top, left + PREPROCESSING.input_px, top + PREPROCESSING.input_px))
        if self.rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.asarray(image, np.float32)[:, :, ::-1] - np.asarray(PREPROCESSING.mean, np.float32)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), int(self.labels[index])


def peer(catalogue: Catalogue) -> Any:
    """A DataLoader with as many workers as cores, which stay from turn to turn; it ends with the turn."""
    sampler = class_balanced_batches(catalogue.labels, CLASSES, IMAGES, seed=0)
    return torch.utils.data.DataLoader(
        PeerDataset(catalogue),
        batch_sampler=[sampler[step].tolist() for step in range(BATCHES + 1)],
        num_workers=CORES,
        multiprocessing_context="spawn",  # forking a process in which TensorFlow has threads may hang
        persistent_workers=True,
    )


def measure(catalogue: Catalogue, folder: Path) -> dict[str, list[float]]:
    """Pictures a second of every method, one figure a turn."""
    cache = PictureCache(folder / "cache")
    begin: dict[str, Callable[[], Iterator[Any]]] = {
        "floor": lambda: floor(catalogue),
        "memory": lambda: ours(catalogue),
        "disk": lambda: ours(catalogue, memory_bytes=0, cache=cache),
        "anew": lambda: ours(catalogue, memory_bytes=0),
        "scaled": lambda: ours(catalogue, scaled=True),
    }
    if torch is not None:
        loader = peer(catalogue)
        begin["peer"] = lambda: iter(loader)
    rates: dict[str, list[float]] = {name: [] for name in begin}
    for _ in range(TURNS):
        for name, start in begin.items():
            batches = start()
            next(batches)  # threads and processes have started
            began = time.perf_counter()
            for _ in range(BATCHES):
                next(batches)
            rates[name].append(BATCHES * CLASSES * IMAGES / (time.perf_counter() - began))
            del batches
    return rates


def measure_sampler() -> dict[str, float]:
    """The sampler at its largest, in a process of its own."""
    labels = np.random.default_rng(0).integers(0, SAMPLER_CLASSES, SAMPLER_PICTURES)
    before = peak_bytes()
    began = time.perf_counter()
    sampler = class_balanced_batches(labels, CLASSES, IMAGES, seed=0)
    next(iter(sampler))
    start_s = time.perf_counter() - began
    times_ms = []
    for step in range(sampler.batches_per_epoch - SAMPLER_BATCHES, sampler.batches_per_epoch + 1):
        began = time.perf_counter()
        sampler[step]
        times_ms.append(1000 * (time.perf_counter() - began))
    return {
        "start_s": start_s,
        "batch_median_ms": statistics.median(times_ms),
        "epochs_first_batch_ms": times_ms[-1],
        "added_bytes": peak_bytes() - before,
    }


def main() -> None:
    """Measure, print a table, and write JSON if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=800)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "pictures").mkdir()
        catalogue = write_pictures(folder / "pictures", arguments.pictures)
        kilobytes = statistics.mean(os.stat(path).st_size for path in catalogue.paths) / 1000
        rates = measure(catalogue, folder)
    result = {
        "cores": CORES,
        "load": os.getloadavg()[0],
        "tensorflow": tf.__version__,
        "torch": None if torch is None else torch.__version__,
        "pictures": len(catalogue),
        "kilobytes_a_picture": kilobytes,
        "pictures_a_second": {name: statistics.median(values) for name, values in rates.items()},
        "to_floor": _ratios(rates, "floor"),
        "to_peer": _ratios(rates, "peer") if "peer" in rates else None,
        "turns": rates,
        "sampler": in_fresh_process(measure_sampler),
    }
    _show(result)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "data.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _ratios(rates: dict[str, list[float]], base: str) -> dict[str, float]:
    return {
        name: statistics.median(a / b for a, b in zip(values, rates[base], strict=True))
        for name, values in rates.items()
    }


def _show(result: dict[str, Any]) -> None:
    print(
        f"{result['pictures']} JPEG pictures of {WIDTH} × {HEIGHT} px, "
        f"{result['kilobytes_a_picture']:.0f} kB each, {result['cores']} cores, load {result['load']:.1f}"
    )
    print(f"{'':10} {'pictures/s':>10} {'to floor':>9} {'to peer':>9}")
    for name, rate in result["pictures_a_second"].items():
        to_peer = f"{result['to_peer'][name]:9.2f}" if result["to_peer"] else f"{'-':>9}"
        print(f"{name:10} {rate:10.0f} {result['to_floor'][name]:9.2f} {to_peer}")
    if result["torch"] is None:
        print("peer was left out: PyTorch is not installed (the extra `bench`)")
    sampler = result["sampler"]
    print(
        f"sampler, {SAMPLER_PICTURES:,} pictures of {SAMPLER_CLASSES:,} classes: "
        f"first batch after {sampler['start_s']:.1f} s, "
        f"then {sampler['batch_median_ms']:.2f} ms "
        f"({sampler['epochs_first_batch_ms']:.0f} ms for an epoch's first), "
        f"{sampler['added_bytes'] / 1e6:.0f} MB added"
    )


if __name__ == "__main__":
    main()
