"""What TensorBoard shows of a run: scalars, ranked lists, and the embedding projector's files."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from rll_tf.data import Catalogue
from rll_tf.evaluation import concatenate_levels
from rll_tf.evaluation.pictures import fit
from rll_tf.training.lists import class_name, draw_lists, open_picture
from rll_tf.training.run import Run

FOLDER = "tensorboard"  # of a run's
# The projector stays quick, and its sprite within what browsers load.
PROJECTED, SPRITE_PX = 2000, 48
PROJECTOR = f"""embeddings {{
  tensor_name: "validation pictures"
  tensor_path: "vectors.tsv"
  metadata_path: "metadata.tsv"
  sprite {{ image_path: "sprite.png" single_image_dim: {SPRITE_PX} single_image_dim: {SPRITE_PX} }}
}}"""


def check_tensorboard() -> None:
    """Raise a ValueError where TensorBoard, whose package writes events, is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError("--tensorboard needs the package tensorboard: pip install 'rll_tf[tensorboard]'")


class TensorBoard(keras.callbacks.Callback):
    """Writes what a run logs to its folder `tensorboard/`: losses, mined shares, learning rate, validation.

    It follows `steps.jsonl` and `epochs.jsonl` from their first lines: a resumed run, whose logs end at its
    last checkpoint, is written anew, so that no step is there twice. It comes after the callbacks that log.

    Args:
        run: whose logs are followed.
        rate: of each step, counted from 0.
    """

    def __init__(self, run: Run, rate: keras.optimizers.schedules.LearningRateSchedule) -> None:
        super().__init__()
        self.folder, self.rate = run.folder / FOLDER, rate
        shutil.rmtree(self.folder, ignore_errors=True)
        self.writer = tf.summary.create_file_writer(str(self.folder))
        for file in (run.steps_file, run.epochs_file):
            file.touch()
        self.steps, self.epochs = (file.open(encoding="utf-8") for file in (run.steps_file, run.epochs_file))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Write what was logged since the last call."""
        self.follow()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Write all to the disk, also where training is interrupted."""
        self.follow()
        self.writer.flush()

    def follow(self) -> None:
        """Write what was logged since the last call."""
        with self.writer.as_default():
            for row in map(json.loads, self.steps):
                step = row.pop("step")
                for name, value in row.items():
                    group = "mined" if name.endswith("_share") else "loss"
                    tf.summary.scalar(f"{group}/{name}", value, step)
                tf.summary.scalar("learning_rate", self.rate(step - 1), step)
            for row in map(json.loads, self.epochs):
                for level, metrics in row.get("validation", {}).items():
                    for name, value in metrics.items():
                        tf.summary.scalar(f"validation_{level}/{name}", value, row["step"])

    def close(self) -> None:
        """Write what is left and close the files."""
        self.follow()
        for stream in (self.writer, self.steps, self.epochs):
            stream.close()

    def write_embeddings(self, embeddings: Mapping[str, np.ndarray], pictures: Catalogue, step: int) -> None:
        """A figure of ranked lists, and up to `PROJECTED` embeddings with pictures for the projector.

        Args:
            embeddings: level -> [n, d].
            pictures: the n pictures.
            step: of the model.
        """
        vectors = concatenate_levels(embeddings)
        subtitle = f"{pictures.spec}, validation classes, step {step}"
        figure = draw_lists(self.folder / "ranked_lists.png", vectors, pictures, "Ranked lists", subtitle)
        with self.writer.as_default():
            tf.summary.image("ranked_lists", tf.io.decode_png(figure.read_bytes(), 3)[None], step)

        chosen = np.sort(np.random.default_rng(0).permutation(len(vectors))[:PROJECTED])
        lines = {
            "vectors.tsv": ["\t".join(f"{value:.5g}" for value in row) for row in vectors[chosen]],
            "metadata.tsv": [class_name(pictures, index) for index in chosen],
            "projector_config.pbtxt": [PROJECTOR],
        }
        for file, content in lines.items():
            text = "\n".join(content) + "\n"
            (self.folder / file).write_text(text, encoding="utf-8", errors="replace")
        _sprite([open_picture(pictures, index) for index in chosen]).save(self.folder / "sprite.png")


def _sprite(pictures: list[Image.Image]) -> Image.Image:
    """Pictures in a square of rows, as the projector takes them."""
    side = int(np.ceil(np.sqrt(len(pictures))))
    sprite = Image.new("RGB", (side * SPRITE_PX, side * SPRITE_PX), "white")
    for number, picture in enumerate(pictures):
        fitted = fit(picture, SPRITE_PX)
        row, column = divmod(number, side)
        left, upper = ((SPRITE_PX - length) // 2 for length in fitted.size)
        sprite.paste(fitted, (column * SPRITE_PX + left, row * SPRITE_PX + upper))
    return sprite
