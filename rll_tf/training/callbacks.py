"""What happens beside the steps of `fit`: logs, validation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from rll_tf.evaluation import CONCAT
from rll_tf.models import without_proxies
from rll_tf.training.files import append_line, read_lines
from rll_tf.training.interrupt import Interrupt
from rll_tf.training.run import Run
from rll_tf.training.settings import Settings

Metrics = dict[str, dict[str, float]]
# At the end of the error when the loss is no longer finite.
DIVERGED = "lower learning_rate"


class Steps(keras.callbacks.Callback):
    """Counts the steps, and ends training where the loss is no longer finite.

    Keras reports the mean over the epoch so far; the metrics are reset before each step, so that they are of
    this batch alone.

    Args:
        first_step: how many steps are done.
    """

    def __init__(self, first_step: int) -> None:
        super().__init__()
        self.step = first_step

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Reset the metrics."""
        self.model.reset_metrics()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the step."""
        self.step += 1
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise ValueError(f"the loss is {loss} at step {self.step}: {DIVERGED}")


class StepLog(Steps):
    """Writes each step's losses and shares of mined queries to `steps.jsonl`, and the loss into a bar.

    Args:
        run: where to write.
        first_step: how many steps are done.
        bar: of `rll_tf.progress`.
    """

    def __init__(self, run: Run, first_step: int, bar: Any) -> None:
        super().__init__(first_step)
        self.run, self.bar = run, bar
        validated = max((row["step"] for row in run.epochs()), default=0)
        self.rows = [row for row in read_lines(run.steps_file) if row["step"] > validated]
        self.seconds: list[float] = []  # of each step, its pictures included

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Reset the metrics."""
        super().on_train_batch_begin(batch, logs)
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the step."""
        super().on_train_batch_end(batch, logs)
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.seconds.append(time.perf_counter() - self._start)
        self.rows.append({"step": self.step, **values})
        append_line(self.run.steps_file, self.rows[-1])
        self.bar.set_description_str(f"loss {values['loss']:.4f}", refresh=False)
        self.bar.update()

    def epoch_means(self) -> dict[str, Any]:
        """The mean loss of the steps since the last call, and by level the mean shares of mined queries."""
        means = {name: sum(row[name] for row in self.rows) / len(self.rows) for name in self.rows[0]}
        self.rows.clear()
        shares = {name: value for name, value in means.items() if name.endswith("_share")}
        return {"loss": means["loss"], "mined": shares}


class Checkpoint(keras.callbacks.Callback):
    """Between steps: saves the state of training, validates, logs that, keeps the best model.

    The state is saved at every validation, after so many minutes, and on Ctrl-C. What training starts from is
    validated too, so that the best model is never worse than that.

    A validation comes after the state is saved, and its line in `epochs.jsonl` is written last. After a kill
    at any point before, it is done again from that state, with the same outcome.

    Args:
        run: where to write.
        settings: the run's.
        log: counts the steps.
        validate: gives the validation metrics by level; None where no classes are held out, then the last
            model counts as the best.
        interrupt: knows whether Ctrl-C was pressed.
        agree: hands the decision whether training has ended to the other workers, see `Follower`.
    """

    def __init__(
        self,
        run: Run,
        settings: Settings,
        log: StepLog,
        validate: Callable[[], Metrics] | None,
        interrupt: Interrupt,
        agree: Callable[[bool], bool],
    ) -> None:
        super().__init__()
        self.run, self.settings, self.log, self.validate = run, settings, log, validate
        self.interrupt, self.agree, self.saved = interrupt, agree, time.monotonic()

    def begin(self, model: keras.Model) -> None:
        """Before `fit`: validate what was not, the start or a step interrupted before its validation."""
        self.set_model(model)
        if rows := self.run.epochs():
            self._show(rows[-1])
        if self.log.step > 0 or self.validate is not None:
            self._validate_if_due()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save and validate, if it is time."""
        pressed, minutes = self.interrupt.pressed, (time.monotonic() - self.saved) / 60
        if pressed or self._is_due() or minutes >= self.settings.checkpoint_minutes:
            self.run.save_state(self.model, self.log.step)
            self.saved = time.monotonic()
        if pressed:
            raise self.interrupted()
        self._validate_if_due()
        if self._is_due():
            self.model.stop_training = self.agree(self.model.stop_training)

    def interrupted(self) -> KeyboardInterrupt:
        """An error that says where training stands."""
        step = self.log.step
        where = f"after step {step}, which {self.run.last_file} holds" if step else "before the first step"
        return KeyboardInterrupt(f"interrupted {where}")

    def _is_due(self) -> bool:
        return _is_due(self.log.step, self.settings)

    def _validate_if_due(self) -> None:
        if not self._is_due():
            return
        rows, step = self.run.epochs(), self.log.step
        if rows and rows[-1]["step"] == step:
            return
        row: dict[str, Any] = {"epoch": -(-step // self.settings.validate_every_steps), "step": step}
        if step:
            row.update(self.log.epoch_means())
        if self.validate is not None:
            try:
                with self.interrupt.at_once():
                    row["validation"] = self.validate()
            except KeyboardInterrupt:
                raise self.interrupted() from None
        rows.append(row)
        if best_epoch(rows) is row:
            self.run.save_best(without_proxies(self.model))
        append_line(self.run.epochs_file, row)
        self._show(row)
        self.model.stop_training = is_finished(rows, self.settings)

    def _show(self, row: dict[str, Any]) -> None:
        if "validation" in row:
            metrics = row["validation"][CONCAT]
            map_at_r, recall = 100 * metrics["map@r"], 100 * metrics["recall@1"]
            self.log.bar.set_postfix_str(f"MAP@R {map_at_r:.1f}, Recall@1 {recall:.1f}")


class Follower(Steps):
    """In a worker that isn't the chief: writes nothing, and waits for the chief to validate and decide.

    Args:
        first_step: how many steps are done.
        settings: the run's.
        interrupt: knows whether Ctrl-C was pressed.
        agree: as the chief's `Checkpoint` has it.
    """

    def __init__(
        self, first_step: int, settings: Settings, interrupt: Interrupt, agree: Callable[[bool], bool]
    ) -> None:
        super().__init__(first_step)
        self.settings, self.interrupt, self.agree = settings, interrupt, agree

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Wait for the chief, if a validation is due."""
        super().on_train_batch_end(batch, logs)
        if self.interrupt.pressed:
            raise KeyboardInterrupt(f"interrupted after step {self.step}")
        if _is_due(self.step, self.settings):
            self.model.stop_training = self.agree(False)


def _is_due(step: int, settings: Settings) -> bool:
    return step % settings.validate_every_steps == 0 or step == settings.steps


def best_epoch(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The line of `epochs.jsonl` with the best validation, the earliest among equals; None of none.

    It is the line whose concatenated embedding has the highest MAP@R on the validation classes: with a few
    dozen of them Recall@1 is too coarse to rank checkpoints. Without validation it is the last line.
    """
    if not rows or "validation" not in rows[-1]:
        return rows[-1] if rows else None
    return max(rows, key=lambda row: row["validation"][CONCAT]["map@r"])


def is_finished(rows: Sequence[dict[str, Any]], settings: Settings) -> bool:
    """Whether the last line of `epochs.jsonl` is that of the last step, or patience has run out."""
    best = best_epoch(rows)
    if best is None:
        return False
    since_best = len(rows) - 1 - rows.index(best)
    return rows[-1]["step"] == settings.steps or (
        settings.patience is not None and since_best >= settings.patience
    )
