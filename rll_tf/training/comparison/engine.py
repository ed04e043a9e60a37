"""The comparison itself: search each loss, train the best setting with several seeds, then test, once."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from rll_tf.training.comparison.ranges import ranges_of, settings_of
from rll_tf.training.comparison.rows import Row
from rll_tf.training.comparison.search import Values, propose
from rll_tf.training.files import read_json, write_json
from rll_tf.training.settings import Settings

Levels = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a finished training run gives.

    Args:
        validation: MAP@R of its best checkpoint on the validation classes; None where there are none, or
            where it diverged before its first checkpoint.
        best_step: of that checkpoint.
        curve: the step and MAP@R of each validation.
        seconds_a_step: the median.
        peak_memory_mib: of the process that trained.
        seconds: all of it.
        diverged: the loss was no longer finite, so that training ended early.
    """

    validation: float | None
    best_step: int | None = None
    curve: tuple[tuple[int, float], ...] = ()
    seconds_a_step: float | None = None
    peak_memory_mib: float | None = None
    seconds: float = 0.0
    diverged: bool = False


class Trainer(Protocol):
    """What trains and tests; `test_classes`, `test` and `untrained` alone may read test pictures."""

    def train(self, settings: Settings, folder: Path) -> Outcome:
        """Train in `folder`; continue what lies there."""

    def stop(self) -> None:
        """End the trainings under way, and let none begin."""

    def trained_classes(self, folder: Path) -> set[str]:
        """The classes that the run in `folder` was trained or validated on."""

    def test_classes(self) -> set[str]:
        """The classes that are tested on."""

    def test(self, folder: Path) -> Levels:
        """The metrics of the run in `folder`, its best checkpoint, on the test classes."""

    def untrained(self, settings: Settings) -> Levels:
        """The metrics of the network before training."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared, and how.

    Args:
        rows: the losses.
        base: the settings that all have in common.
        classes: how many there are to train on, in the smallest fold.
        trials: for each loss, as many; 0 where all rows are fixed.
        seeds: how often the best setting of each is trained.
    """

    rows: tuple[Row, ...]
    base: Settings
    classes: int
    trials: int
    seeds: int

    @property
    def folds(self) -> int:
        """How many runs a trial has."""
        return max(1, self.base.validation_folds)

    @property
    def final_seeds(self) -> range:
        """The seeds of the final runs; the search has seed 0, hence other weights and held-out classes."""
        return range(1, 1 + self.seeds)

    @property
    def runs(self) -> int:
        """How many runs there are in all."""
        return sum(self.seeds + (self.trials * self.folds if row.fixed is None else 0) for row in self.rows)

    def settings(self, row: Row, values: Mapping[str, Any], seed: int, fold: int) -> Settings:
        """The settings of one run."""
        made = settings_of(row.loss, row.levels, self.base, self.classes, {**(row.fixed or {}), **values})
        return dataclasses.replace(made, seed=seed, validation_fold=fold)


def compare(
    comparison: Comparison,
    folder: Path,
    trainer: Trainer,
    *,
    jobs: int = 1,
    report: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Search, train, test; return each row's record, the test metrics of every seed included.

    Every finished step leaves a file under `folder/runs`, and is not repeated. A search looks at nothing but
    the validation classes, and the test classes are read after the last training run of all rows. A killed
    comparison, called again, ends as it would have.

    Args:
        comparison: what to compare.
        folder: where the runs are.
        trainer: what trains and tests.
        jobs: how many runs go side by side: of different losses while they are searched.
        report: is given a line after each run.

    Returns:
        For each row `{"row", "trials": [{"parameters", "validation", "runs"}], "parameters", "settings",
        "seeds": [outcome], "tests": [levels], "saw_test_classes": [name]}`.
    """
    work = _Work(comparison, folder / "runs", trainer, report)
    records = _side_by_side(jobs, [partial(work.search, row) for row in comparison.rows], trainer.stop)
    finals = [partial(work.final, record, seed) for record in records for seed in comparison.final_seeds]
    outcomes = _side_by_side(jobs, finals, trainer.stop)
    for number, record in enumerate(records):
        of_row = slice(number * comparison.seeds, (number + 1) * comparison.seeds)
        record["seeds"] = [dataclasses.asdict(outcome) for outcome in outcomes[of_row]]
    for record in records:  # all training is over
        work.test(record)
    return records


def _side_by_side(jobs: int, tasks: Sequence[Callable[[], Any]], stop: Callable[[], None]) -> list[Any]:
    """The tasks' results, in their order; after an error or Ctrl-C the others are stopped."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()  # raises what the task raised
        except BaseException:
            stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


class _Work:
    """The steps of one comparison, each with its file."""

    def __init__(
        self, comparison: Comparison, folder: Path, trainer: Trainer, report: Callable[[str], None]
    ) -> None:
        self.comparison, self.folder, self.trainer, self.report = comparison, folder, trainer, report
        self.lock, self.start, self.trained = Lock(), time.monotonic(), 0
        self.kept = sum(len(list((folder / row.folder).glob("*/outcome.json"))) for row in comparison.rows)

    def search(self, row: Row) -> dict[str, Any]:
        """Search a row on the validation classes, or take what is fixed for it."""
        trials = []
        if row.fixed is None:
            ranges = ranges_of(row.loss, self.comparison.base)
            finished: list[tuple[Values, float]] = []
            for number in range(1, self.comparison.trials + 1):
                name = f"trial-{number:02d}"
                file = self.folder / row.folder / f"{name}.json"
                # Written before training: the trial of a killed search is trained with the same values.
                values = self._kept(file, lambda: propose(ranges, finished))
                folds = range(1, self.comparison.folds + 1)
                names = [f"{name}-fold-{fold}" if len(folds) > 1 else name for fold in folds]
                runs = [
                    self._train(row, values, 0, fold, run) for fold, run in zip(folds, names, strict=True)
                ]
                finished.append((values, statistics.fmean(run.validation or 0.0 for run in runs)))
                trials.append(
                    {
                        "parameters": values,
                        "validation": finished[-1][1],
                        "runs": [dataclasses.asdict(run) for run in runs],
                    }
                )
        best = max(trials, key=lambda trial: trial["validation"])["parameters"] if trials else {}
        return {"row": row, "trials": trials, "parameters": {**(row.fixed or {}), **best}}

    def final(self, record: dict[str, Any], seed: int) -> Outcome:
        """Train a row's best setting with one seed; with folds, each seed validates on the next."""
        fold = seed % self.comparison.folds + 1
        return self._train(record["row"], record["parameters"], seed, fold, f"seed-{seed}")

    def test(self, record: dict[str, Any]) -> None:
        """Test a row's runs, and compare the classes that they saw with those of the test."""
        row: Row = record["row"]
        folder = self.folder / row.folder
        runs = [folder / f"seed-{seed}" for seed in self.comparison.final_seeds]
        test_classes = self.trainer.test_classes()
        seen = set.union(*(self.trainer.trained_classes(run) for run in runs)) & test_classes
        record["saw_test_classes"] = sorted(seen)
        record["tests"] = [
            self._kept(run / "test.json", lambda: self.trainer.test(run))  # noqa: B023, called at once
            for run in runs
        ]
        settings = self.comparison.settings(row, {}, 0, 1)
        levels = self.folder / "untrained" / f"{'-'.join(row.levels)}-{settings.embedding_dim}.json"
        record["untrained"] = self._kept(levels, lambda: self.trainer.untrained(settings))
        record["settings"] = self.comparison.settings(row, record["parameters"], 0, 1)
        self.report(f"tested {row.name}")

    def _train(self, row: Row, values: Values, seed: int, fold: int, name: str) -> Outcome:
        folder = self.folder / row.folder / name
        settings = self.comparison.settings(row, values, seed, fold)

        def train() -> dict[str, Any]:
            outcome = self.trainer.train(settings, folder)
            with self.lock:
                self.trained += 1
                self.report(self._line(row, name, outcome))
            return dataclasses.asdict(outcome)

        return Outcome(**self._kept(folder / "outcome.json", train))

    def _line(self, row: Row, name: str, outcome: Outcome) -> str:
        done, runs = self.kept + self.trained, self.comparison.runs
        minutes_left = (time.monotonic() - self.start) / self.trained * (runs - done) / 60
        score = outcome.validation
        found = "not validated" if score is None else f"validation MAP@R {score:.4f}"
        ended = ", diverged" if outcome.diverged else ""
        return (
            f"[{done}/{runs}] {row.name} {name}: {found}{ended}, "
            f"{outcome.seconds:.0f} s; about {minutes_left // 60:.0f} h {minutes_left % 60:02.0f} min left"
        )

    def _kept(self, file: Path, make: Callable[[], Any]) -> Any:
        """What `file` holds; where there is none, what `make` returns, which is written first."""
        if not file.is_file():
            made = make()
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, made)
        return read_json(file)
