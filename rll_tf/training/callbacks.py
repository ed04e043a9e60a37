"""What happens beside the steps of `fit`: logs, validation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import keras

from rll_tf.evaluation import CONCAT
from rll_tf.models import without_proxies
from rll_tf.training.files import append_line
from rll_tf.training.optimizers import update_count
from rll_tf.training.run import Run

Metrics = dict[str, dict[str, float]]
# At the end of the error when the loss is no longer finite.
DIVERGED = "lower learning_rate"


class StepLog(keras.callbacks.Callback):
    """Writes each step's losses and shares of mined queries to `steps.jsonl`; ends training after `steps`.

    Keras reports the mean over the epoch so far; the metrics are reset before each step, so that a line (and
    the progress bar) shows this batch alone.
    """

    def __init__(self, run: Run, first_step: int, steps: int) -> None:
        super().__init__()
        self.run, self.step, self.steps = run, first_step, steps
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []  # of each step, its pictures included

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Reset the metrics."""
        self.model.reset_metrics()
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the step."""
        self.step += 1
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.seconds.append(time.perf_counter() - self._start)
        if not math.isfinite(values["loss"]):
            raise ValueError(f"the loss is {values['loss']} at step {self.step}: {DIVERGED}")
        self.rows.append(values)
        append_line(self.run.steps_file, {"step": self.step, **values})
        _drop_shares(logs)
        self.model.stop_training = self.step >= self.steps

    def epoch_means(self) -> dict[str, Any]:
        """The mean loss of the steps since the last call, and by level the mean shares of mined queries."""
        means = {name: sum(row[name] for row in self.rows) / len(self.rows) for name in self.rows[0]}
        self.rows.clear()
        return {"loss": means["loss"], "mined": {name: means[name] for name in filter(_is_share, means)}}


class Checkpoint(keras.callbacks.Callback):
    """After each epoch of `fit`: validates, logs, keeps the best model, saves the state of training.

    A model is validated before its first step too, so that the best one is never worse than it began.

    The state is saved last. After a kill at any point before, the epoch is done again from the state before
    it, with the same outcome.

    Args:
        run: where to write.
        log: counts the steps.
        validate: the model's validation metrics by level; empty where no classes are held out, then the last
            model counts as the best.
    """

    def __init__(self, run: Run, log: StepLog, validate: Callable[[keras.Model], Metrics]) -> None:
        super().__init__()
        self.run, self.log, self.validate = run, log, validate

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Validate what training starts from."""
        if self.log.step == 0 and (validation := self.validate(self.model)):
            append_line(self.run.epochs_file, {"epoch": 0, "step": 0, "validation": validation})
            self.model.optimizer.build(self.model.trainable_variables)  # a file lacking its state isn't read
            self.run.save(without_proxies(self.model), self.run.best_file)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate and save."""
        row: dict[str, Any] = {"epoch": epoch + 1, "step": self.log.step}
        row["updates"] = update_count(self.model.optimizer)
        row.update(self.log.epoch_means())
        validation = self.validate(self.model)
        if validation:
            row["validation"] = validation
        append_line(self.run.epochs_file, row)
        if best_epoch(self.run) == row:
            self.run.save(without_proxies(self.model), self.run.best_file)
        self.run.save(self.model, self.run.last_file)
        _drop_shares(logs)
        if logs is not None and "validation" in row:
            logs["val_recall@1"] = row["validation"][CONCAT]["recall@1"]  # shown at the end of the bar


def _is_share(name: str) -> bool:
    return name.endswith("_share")


def _drop_shares(logs: dict[str, Any] | None) -> None:
    """The progress bar has no room for them."""
    for name in filter(_is_share, list(logs or {})):
        del logs[name]  # type: ignore[union-attr]


def best_epoch(run: Run) -> dict[str, Any] | None:
    """The line of `epochs.jsonl` with the best validation, the earliest among equals; None before the first.

    It is the line whose concatenated embedding has the highest MAP@R on the validation classes: with a few
    dozen of them Recall@1 is too coarse to rank checkpoints. Without validation it is the last line.
    """
    rows = run.epochs()
    if not rows or "validation" not in rows[-1]:
        return rows[-1] if rows else None
    return max(rows, key=lambda row: row["validation"][CONCAT]["map@r"])
