"""An artefact compared with the model it was made from, before it is published."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from rll_tf.data import Preprocessing
from rll_tf.evaluation import concatenate_levels, nearest_neighbours
from serving.guard import Limits
from serving.search import PackedGallery
from serving.signatures import DEFAULT, PIXELS, SEARCH

# float32 rounding of one graph run by two processes; a wrong preprocessing or weight is off by far more.
TOLERANCE = 1e-5
TIMEOUT_S = 600
# Height, width and channels of pictures of noise; smaller where the limits are.
_FILES = [(48, 48, 3), (31, 90, 3), (120, 77, 1)]
_PIXELS = 2


def check(
    model: keras.Model,
    preprocessing: Preprocessing,
    limits: Limits,
    folder: Path,
    gallery: PackedGallery | None = None,
    gallery_level: str | None = None,
) -> None:
    """Run an artefact in a fresh process without Keras and this package, and compare with the model.

    Both on the processor, also where there is a GPU: it would round otherwise, and one may not have memory
    for two processes.

    Raises:
        RuntimeError: it fails there, or its outputs differ.
    """
    rng = np.random.default_rng(0)
    most_px = math.isqrt(limits.max_pixels)
    files = []
    for height, width, channels in _FILES:
        size = min(height, most_px), min(width, most_px), channels
        files.append(tf.io.encode_png(rng.integers(0, 256, size, np.uint8)).numpy())
    side = preprocessing.resize_px
    pixels = rng.integers(0, 256, [min(_PIXELS, limits.max_batch), side, side, 3], np.uint8)
    found = _run_in_fresh_process(folder, files, pixels, min(len(files), limits.max_batch))

    with tf.device("/CPU:0"):  # as the fresh process, which sees no GPU
        expected = _embed(model, tf.stack([preprocessing.prepare(file) for file in files]))
        window = preprocessing.window(tf.constant(pixels), preprocessing.centre)
        expected_of_pixels = _embed(model, preprocessing.normalise(window))[DEFAULT]
    embeddings = "{} embeddings must equal the model's".format
    for level, embedding in expected.items():
        _compare(embeddings(level), found[f"{level}/embedding"], embedding)
    _compare(embeddings(PIXELS), found[f"{PIXELS}/embedding"], expected_of_pixels)
    if gallery is not None:
        queries = expected[gallery_level or DEFAULT]
        _, distances = nearest_neighbours(queries, gallery.top, gallery=gallery.restored())
        # Distances alone: which of near-duplicates comes first may differ by rounding.
        _compare("search must find the distances of exact search", found[f"{SEARCH}/distances"], distances)


def _embed(model: keras.Model, pictures: tf.Tensor) -> dict[str, np.ndarray]:
    levels = {level: values.numpy() for level, values in model(pictures, training=False).items()}
    return {**levels, DEFAULT: concatenate_levels(levels)}


def _run_in_fresh_process(
    folder: Path, files: list[bytes], pixels: np.ndarray, batch: int
) -> Mapping[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as scratch:
        request, response = Path(scratch, "request.npz"), Path(scratch, "response.npz")
        content = np.frombuffer(b"".join(files), np.uint8)
        np.savez(request, bytes=content, lengths=[len(file) for file in files], pixels=pixels, batch=batch)
        script = Path(__file__).with_name("fresh_process.py")
        command = [sys.executable, "-I", *map(str, (script, folder, request, response))]
        process = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if process.returncode != 0:
            raise RuntimeError(f"the artefact failed in a fresh process: {process.stderr.strip()[-2000:]}")
        with np.load(response) as arrays:
            return dict(arrays)


def _compare(rule: str, found: np.ndarray, expected: np.ndarray) -> None:
    difference = float(np.max(np.abs(found - expected)))
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the artefact's {rule} to {TOLERANCE}; the largest difference is {difference}")
