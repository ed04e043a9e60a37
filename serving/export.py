"""From a trained model to a folder that TensorFlow Serving loads."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rll_tf.data import Preprocessing

METADATA_FILE = Path("assets.extra", "rll_tf.json")
# float32 rounding of one graph run by two processes; a wrong preprocessing or weight is off by far more.
CHECK_TOLERANCE = 1e-5
CHECK_TIMEOUT_S = 600


def export(model: keras.Model, preprocessing: Preprocessing, to: Path, metadata: Mapping[str, Any]) -> Path:
    """Write `to/<version>/`, a SavedModel that takes picture files' bytes, and check it.

    Its signatures each take `images`, [B] strings, the bytes of JPEG, PNG, BMP or GIF files, and answer
    `embedding`, [B, d] float32 of unit norm: `serving_default` the levels concatenated, and one of each
    level's name. Decoding, resizing and normalisation are inside the graph.

    The artefact is written under a temporary name, loaded in a fresh process that does not have this
    package, compared with `model` on pictures of noise, and only then moved to the next free version, so
    that a server watching `to` never sees half a model or a wrong one.

    Args:
        model: from [B, h, w, 3] to `{level: [B, d]}`.
        preprocessing: what the model was trained with.
        to: the folder of versions, made if need be.
        metadata: kept with the artefact, in `assets.extra/rll_tf.json`.

    Returns:
        The folder of the new version.

    Raises:
        RuntimeError: the artefact does not load in a fresh process, or answers otherwise than the model.
        OSError: the folder can't be written.
    """
    to.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=to))
    try:
        try:
            _write(model, preprocessing, partial)
        except tf.errors.OpError as error:  # TensorFlow's own word for a full disk
            raise OSError(f"{to} can't be written: {error.message}") from error
        information = {
            **metadata,
            "levels": {level: int(output.shape[-1]) for level, output in model.output.items()},
            "preprocessing": dataclasses.asdict(preprocessing),
        }
        (partial / METADATA_FILE).parent.mkdir(exist_ok=True)
        (partial / METADATA_FILE).write_text(json.dumps(information, indent=2) + "\n", encoding="utf-8")
        _check(model, preprocessing, partial)
        partial.chmod(0o755)  # mkdtemp's folder is its owner's alone; a server runs as another user
        return _publish(partial, to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(model: keras.Model, preprocessing: Preprocessing, folder: Path) -> None:
    def pictures(images: tf.Tensor) -> tf.Tensor:
        side = preprocessing.input_px
        return tf.map_fn(
            preprocessing.prepare, images, fn_output_signature=tf.TensorSpec([side, side, 3], tf.float32)
        )

    def concatenated(images: tf.Tensor) -> dict[str, tf.Tensor]:
        levels = model(pictures(images), training=False)
        joined = tf.concat([levels[level] for level in model.output], axis=1)
        return {"embedding": tf.math.l2_normalize(joined, axis=1)}

    def answer_with(part: keras.Model) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        return lambda images: {"embedding": part(pictures(images), training=False)}

    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec([None], tf.string, name="images")]
    archive.add_endpoint("serving_default", concatenated, input_signature=signature)
    for level in model.output:
        # A model of its own, so that the level's signature holds only the layers it needs.
        part = keras.Model(model.input, model.output[level])
        archive.add_endpoint(level, answer_with(part), input_signature=signature)
    archive.write_out(str(folder), verbose=False)


def _check(model: keras.Model, preprocessing: Preprocessing, folder: Path) -> None:
    """Compare the artefact, loaded in a fresh process without this package, with the model."""
    rng = np.random.default_rng(0)
    probes = [
        tf.io.encode_png(rng.integers(0, 256, [height, width, channels], np.uint8)).numpy()
        for height, width, channels in [(48, 48, 3), (31, 90, 3), (120, 77, 1)]
    ]
    inputs = tf.stack([preprocessing.prepare(probe) for probe in probes])
    wanted = model(inputs, training=False)
    with tempfile.TemporaryDirectory() as scratch:
        request, answer = Path(scratch, "request.npz"), Path(scratch, "answer.npz")
        everything = np.frombuffer(b"".join(probes), np.uint8)
        np.savez(request, bytes=everything, lengths=[len(probe) for probe in probes])
        script = Path(__file__).with_name("fresh_process.py")
        process = subprocess.run(
            [sys.executable, "-I", script, folder, request, answer],
            capture_output=True,
            text=True,
            timeout=CHECK_TIMEOUT_S,
            check=False,
        )
        if process.returncode != 0:
            raise RuntimeError(f"the artefact failed in a fresh process: {process.stderr.strip()[-2000:]}")
        with np.load(answer) as answers:
            for level, embedding in wanted.items():
                difference = float(np.max(np.abs(answers[level] - embedding.numpy())))
                if not difference <= CHECK_TOLERANCE:
                    raise RuntimeError(
                        f"the artefact's {level} embeddings must equal the model's to {CHECK_TOLERANCE}; "
                        f"the largest difference is {difference}"
                    )


def _publish(partial: Path, to: Path) -> Path:
    while True:
        taken = [int(entry.name) for entry in to.iterdir() if entry.name.isdigit()]
        version = to / str(max(taken, default=0) + 1)
        try:
            os.rename(partial, version)
        except OSError:
            if not version.exists():
                raise
        else:
            return version
