"""What trains and tests the runs of `rll compare`: `rll train` in processes of their own."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.console import PREFIX

if TYPE_CHECKING:
    from rll_tf.data import Catalogue
    from rll_tf.training import Settings
    from rll_tf.training.comparison import Comparison, Outcome, Row

RECALL_AT = (1, 2, 4, 8, 10, 100)
QUERIES, NEIGHBOURS = 4, 8  # of the page's ranked lists


class RllTrain:
    """Trains with `rll train` in a process of its own, and tests in this one.

    A job's folder holds `run`, the run folder, and `log.txt`, what was printed. Only the final runs keep a
    model, their best. Damaged pictures are left out, in training and, counted, in the test: hours of work
    don't end because of one.
    """

    def __init__(
        self,
        comparison: Comparison,
        catalogue: Catalogue,
        other: Catalogue | None,
        recipe: str,
        out: Path,
        jobs: int,
    ) -> None:
        from rll_tf.data import counted, skip_corrupt

        self.comparison, self.catalogue, self.other = comparison, catalogue, other
        self.recipe, self.out = recipe, out
        self.environment = dict(os.environ, TF_FORCE_GPU_ALLOW_GROWTH="true")
        if jobs > 1:
            threads = str(max(1, (os.cpu_count() or 1) // jobs))
            self.environment |= {
                "OMP_NUM_THREADS": threads,
                "TF_NUM_INTRAOP_THREADS": threads,
                "TF_NUM_INTEROP_THREADS": threads,
            }
        damaged = skip_corrupt(catalogue.without_test())[1].reasons
        if damaged:
            print(f"{counted(len(damaged), 'damaged picture')} left out of training, such as {damaged[0]}")
        self.flags = ["--skip-corrupt"] if damaged else []
        self.children: set[subprocess.Popen] = set()
        self.lock, self.stopped = threading.Lock(), False
        self.tested: tuple[Catalogue, Any] | None = None
        self.skipped: Any = None

    def stop(self) -> None:
        """Kill the trainings under way, each of which goes on from its last checkpoint another time."""
        with self.lock:
            self.stopped = True
            for child in self.children:
                child.kill()

    def train(self, settings: Settings, folder: Path) -> Outcome:
        """Train, or go on."""
        from rll_tf.training import Run
        from rll_tf.training.callbacks import DIVERGED

        run = Run(folder / "run")
        start = time.monotonic()
        diverged = False
        if not run.metrics_file.is_file():
            status, message = self._process(self._command(run, settings), folder / "log.txt")
            diverged = status != 0 and message.endswith(DIVERGED)
            if status and not diverged:
                reason = message.removeprefix(PREFIX) if message else f"it ended with status {status}"
                raise ValueError(f"training {folder} failed: {reason}")
        run.delete_state()
        if folder.name.startswith("trial"):
            run.best_file.unlink(missing_ok=True)
        return outcome_of(run, time.monotonic() - start, diverged)

    def _command(self, run: Any, settings: Settings) -> list[str]:
        words = ["train", self.recipe, "--out", str(run.folder), "--cache", str(self.out / "pictures")]
        if run.config_file.is_file():
            return [*words, "--resume"]
        words += ["--data", self.catalogue.spec, *self.flags]
        return words + [word for setting in _as_assignments(settings) for word in ("--set", setting)]

    def _process(self, words: list[str], log: Path) -> tuple[int, str]:
        """Run `rll`, its output into a file; return its status and its error."""
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "trainers.child", *words]
        with log.open("a+", encoding="utf-8", errors="replace") as stream:
            print("$ rll", *words, file=stream, flush=True)
            start = stream.tell()
            with self.lock:
                if self.stopped:
                    raise ValueError("stopped")
                child = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.STDOUT,
                    env=self.environment,
                )  # fmt: skip
                self.children.add(child)
            # Not `communicate`, which would close standard input, by which the child knows that we live.
            status = child.wait()
            with self.lock:
                self.children.discard(child)
            assert child.stdin is not None
            child.stdin.close()
            stream.seek(start)
            errors = [line for line in stream.read().splitlines() if line.startswith(PREFIX)]
        return status, errors[-1] if errors else ""

    def trained_classes(self, folder: Path) -> set[str]:
        """From the run's configuration."""
        from rll_tf.training import Run

        config = Run.open(folder / "run").config
        seen = {name for split in ("train", "validation") for name in config["classes"].get(split, ())}
        return {f"{config['data']}: {name}" for name in seen}

    def test_classes(self) -> set[str]:
        """The classes of the test pictures, each with its data set's name."""
        pictures = self._test_pictures()[0]
        return {f"{pictures.spec}: {name}" for name in pictures.classes}

    def test(self, folder: Path) -> dict[str, dict[str, float]]:
        """The metrics of a run's best checkpoint."""
        from rll_tf.training import Run

        run = Run.open(folder / "run")
        if not run.best_file.is_file():  # it diverged before its first checkpoint
            return self.untrained(run.settings)
        return self._metrics(run.best_model(), run.settings, folder / "lists.json")

    def untrained(self, settings: Settings) -> dict[str, dict[str, float]]:
        """The metrics of the network before training."""
        from rll_tf.training.build import build, with_pixels

        settings = with_pixels(dataclasses.replace(settings, loss="ranked_list", loss_parameters={}))
        return self._metrics(build(settings), settings)

    @property
    def test_name(self) -> str:
        """What is tested on, in words."""
        from rll_tf.data import counted

        pictures, in_gallery = self._test_pictures()
        of = f"{counted(len(pictures), 'picture')} of {counted(pictures.class_count, 'class')}"
        if self.skipped.reasons:
            of += f" ({counted(len(self.skipped.reasons), 'damaged picture')} left out)"
        if self.other is not None:
            return f"{self.other.spec}, {of}"
        if in_gallery is not None:
            return f"{self.catalogue.spec}, query against gallery, {of}"
        return f"{self.catalogue.spec}, split test, {of}"

    def shared_pictures(self) -> int:
        """How many test pictures have the very bytes of one to train on."""
        from rll_tf.data import Catalogue, duplicates

        training, pictures = self.catalogue.without_test(), self._test_pictures()[0]
        if training.pixels is not None or pictures.pixels is not None:
            return 0
        import numpy as np

        both = Catalogue(
            "both", training.paths + pictures.paths, np.zeros(len(training) + len(pictures), np.int64), ("",)
        )
        first = len(training)
        return sum(sum(index >= first for index in group) for group in duplicates(both) if min(group) < first)

    def _test_pictures(self) -> tuple[Catalogue, Any]:
        from rll_tf.data import skip_corrupt
        from trainers.data import query_and_gallery

        if self.tested is None:
            whole = self.catalogue if self.other is None else self.other
            if "gallery" in whole.splits:
                whole, self.skipped = skip_corrupt(whole)
                self.tested = query_and_gallery(whole)
            else:
                pictures = whole.select("test") if "test" in whole.splits else whole
                pictures, self.skipped = skip_corrupt(pictures)
                self.tested = pictures, None
        return self.tested

    def lists(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What the page needs to show ranked lists: those of each row's first seed, pictures, names."""
        import numpy as np
        from PIL import Image

        from rll_tf.data import printable
        from rll_tf.evaluation import RankedLists
        from rll_tf.training.files import read_json

        pictures = self._test_pictures()[0]
        files = {row.name: self.out / "runs" / row.folder / "seed-1" / "lists.json" for row in rows}
        return {
            "lists": {
                name: RankedLists(**{key: np.array(value) for key, value in read_json(file).items()})
                for name, file in files.items()
                if file.is_file()
            },
            "image": lambda index: Image.open(io.BytesIO(pictures.encoded(index))),
            "class_name": lambda index: printable(pictures.class_names[pictures.labels[index]]),
        }

    def _metrics(
        self, model: Any, settings: Settings, lists_file: Path | None = None
    ) -> dict[str, dict[str, float]]:
        from rll_tf.data import PictureCache
        from rll_tf.evaluation import concatenate_levels
        from rll_tf.evaluation.selection import draw_queries, ranked_lists
        from rll_tf.training import embed, evaluate_embeddings
        from rll_tf.training.files import write_json

        pictures, in_gallery = self._test_pictures()
        cache = PictureCache(self.out / "pictures")
        embeddings = embed(model, pictures, settings.preprocessing, cache=cache)
        if lists_file is not None and in_gallery is None:
            queries = draw_queries(pictures.labels, QUERIES)
            lists = ranked_lists(concatenate_levels(embeddings), pictures.labels, queries, NEIGHBOURS)
            write_json(lists_file, {key: value.tolist() for key, value in vars(lists).items()})
        return evaluate_embeddings(embeddings, pictures.labels, in_gallery=in_gallery, recall_at=RECALL_AT)


def _as_assignments(settings: Settings) -> Iterator[str]:
    """Every setting as `--set` takes it."""
    from rll_tf.training.settings import as_text

    for name, value in dataclasses.asdict(settings).items():
        if name == "loss_parameters":
            yield from (f"loss.{key}={as_text(each)}" for key, each in value.items())
        else:
            yield f"{name}={as_text(value)}"


def outcome_of(run: Any, seconds: float, diverged: bool) -> Outcome:
    """From a run's files."""
    from rll_tf.training import CONCAT
    from rll_tf.training.callbacks import best_epoch
    from rll_tf.training.comparison import Outcome
    from rll_tf.training.files import read_json

    epochs = [row for row in run.epochs() if "validation" in row]
    best = best_epoch(run.epochs())
    cost = read_json(run.cost_file) if run.cost_file.is_file() else {}
    return Outcome(
        validation=best["validation"][CONCAT]["map@r"] if best and "validation" in best else None,
        best_step=best["step"] if best else None,
        curve=tuple((row["step"], row["validation"][CONCAT]["map@r"]) for row in epochs),
        seconds=round(seconds, 1),
        diverged=diverged,
        **cost,
    )
