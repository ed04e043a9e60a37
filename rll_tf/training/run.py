"""A run folder: everything a training run leaves behind, and what a killed one is resumed from."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rll_tf.models import find_backbone
from rll_tf.training.files import read_json, read_lines, replacing, write_json
from rll_tf.training.losses import memory_state, restore_memory
from rll_tf.training.settings import Settings

# What `config.json` holds at least.
_CONFIG = {"data", "settings", "fingerprint", "classes"}
# A checkpoint's members beside Keras's own: how many steps were done, and what losses remember.
_STEP, _MEMORY = "step.txt", "memory.npz"
# What Keras, zipfile and h5py raise for a damaged checkpoint.
LOAD_ERRORS = (
    zipfile.BadZipFile, EOFError, KeyError, OSError, TypeError, UserWarning, ValueError, zlib.error,
)  # fmt: skip


class Run:
    """The files of one run.

    | file | what it holds |
    |---|---|
    | `config.json` | recipe, settings, data, the classes trained and validated on, versions, commit |
    | `steps.jsonl` | one line per step: the batch's loss, whole and by level, and what ranked_list mined |
    | `epochs.jsonl` | one line per validation: the step, its metrics, mean loss and shares since the last |
    | `checkpoints/last.keras` | the whole state of training, and after which step it is |
    | `checkpoints/previous.keras` | what `last.keras` was before |
    | `checkpoints/best.keras` | the model with the best validation so far, without proxies |
    | `cost.json` | seconds a step, the process's largest memory; the only numbers that differ between runs |
    | `metrics.json` | written at the end: the best step and its validation metrics |

    Files are replaced in one move once they are wholly written, so that each is whole at any time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_file = folder / "config.json"
        self.steps_file = folder / "steps.jsonl"
        self.epochs_file = folder / "epochs.jsonl"
        self.cost_file = folder / "cost.json"
        self.metrics_file = folder / "metrics.json"
        self.last_file = folder / "checkpoints" / "last.keras"
        self.previous_file = folder / "checkpoints" / "previous.keras"
        self.best_file = folder / "checkpoints" / "best.keras"
        self._last_is_damaged = False

    @classmethod
    def create(cls, folder: Path, config: Mapping[str, Any]) -> Run:
        """Begin a run in a new or empty folder.

        Raises:
            FileExistsError: the folder holds something already.
        """
        # A kill in here leaves empty folders, and perhaps a part of the configuration.
        files = [folder] if folder.is_file() else (file for file in folder.rglob("*") if file.is_file())
        if any(file.name != "partial-config.json" for file in files):
            raise FileExistsError(
                f"{folder} exists already and a run is never overwritten: "
                "take another folder, or continue this run with --resume"
            )
        run = cls(folder)
        run.best_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(run.config_file, config)
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a run that exists.

        Raises:
            FileNotFoundError: `folder` holds no run.
        """
        run = cls(folder)
        if not run.config_file.is_file():
            raise FileNotFoundError(f"{folder} is not a run: it has no config.json")
        return run

    @property
    def config(self) -> dict[str, Any]:
        """What `config.json` holds.

        Raises:
            ValueError: it is not what a run writes.
        """
        config = read_json(self.config_file)
        missing = _CONFIG - set(config) if isinstance(config, dict) else _CONFIG
        if missing:
            raise ValueError(f"{self.config_file} is damaged: it must hold {', '.join(sorted(missing))}")
        return config

    @property
    def settings(self) -> Settings:
        """The run's settings.

        Raises:
            ValueError: `config.json` is not what a run writes.
        """
        values = self.config["settings"]
        try:
            return Settings.from_dict(values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self.config_file} holds other settings than this version: {error}") from error

    def best_model(self) -> keras.Model:
        """The model with the best validation.

        Raises:
            FileNotFoundError: training broke off before its first checkpoint.
            ValueError: the checkpoint is damaged.
        """
        if not self.best_file.is_file():
            raise FileNotFoundError(f"{self.folder} has no checkpoint yet: continue it with --resume")
        return self._load(self.best_file)

    def last_state(self) -> tuple[keras.Model, int] | None:
        """The model with its optimizer, and the step, of the last checkpoint; None before the first.

        Where it is damaged, a line says so and the one before takes its place.

        Raises:
            ValueError: no checkpoint can be loaded.
        """
        files = [file for file in (self.last_file, self.previous_file) if file.is_file()]
        for file in files:
            try:
                model = self._load(file)
                with _naming(file), zipfile.ZipFile(file) as archive:
                    step = int(archive.read(_STEP))
                    with archive.open(_MEMORY) as stream, np.load(stream) as memory:
                        restore_memory(model, memory)
            except ValueError as error:
                if file == files[-1]:
                    raise
                print(f"{error}; training continues from {files[-1].name}, the previous checkpoint")
                continue
            self._last_is_damaged = file == self.previous_file
            return model, step
        return None

    def save_state(self, model: keras.Model, step: int) -> None:
        """Save a model, its optimizer's state and the step as the last checkpoint; keep the one before."""
        with replacing(self.last_file) as partial:
            model.save(partial)
            with zipfile.ZipFile(partial, "a") as archive:
                archive.writestr(_STEP, str(step))
                with archive.open(_MEMORY, "w") as stream:
                    np.savez(stream, **memory_state(model))  # type: ignore[arg-type]
            if self.last_file.exists() and not self._last_is_damaged:
                os.replace(self.last_file, self.previous_file)
            self._last_is_damaged = False

    def delete_state(self) -> None:
        """Delete what training would be continued from."""
        for file in (self.last_file, self.previous_file):
            file.unlink(missing_ok=True)

    def save_best(self, model: keras.Model) -> None:
        """Save a model as the best one."""
        with replacing(self.best_file) as partial:
            model.save(partial)

    def epochs(self) -> list[dict[str, Any]]:
        """The lines of `epochs.jsonl`."""
        return read_lines(self.epochs_file)

    def rewind(self, step: int) -> None:
        """Forget what was logged after `step`, the step of the last checkpoint."""
        for file in (self.steps_file, self.epochs_file):
            kept = [row for row in read_lines(file) if row["step"] <= step]
            with replacing(file) as partial:
                partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def _load(self, file: Path) -> keras.Model:
        find_backbone(self.settings.backbone)  # imports the package whose layers the model may hold
        with _naming(file), warnings.catch_warnings():
            zipfile.ZipFile(file).close()  # Keras reports a truncated file as not found
            # Keras only warns where it leaves an optimizer's state out.
            warnings.filterwarnings("error", "Skipping variable loading", UserWarning)
            return keras.models.load_model(file)


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Errors name the damaged file."""
    try:
        yield
    except LOAD_ERRORS as error:
        raise ValueError(f"{file} can't be loaded, it may be damaged: {error}") from error
