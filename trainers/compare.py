"""`rll compare`: which loss is best on these pictures."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers import console
from trainers.recipes import find_recipe

if TYPE_CHECKING:
    from rll_tf.data import Catalogue
    from rll_tf.training import Settings
    from rll_tf.training.comparison import Comparison, Outcome, Row

TEST_SHARE = 0.5  # of a folder's classes, as in the paper's protocol
FEW_CLASSES, FOLDS = 40, 4
VALIDATION_SHARE = 0.15  # where a recipe holds none out
RECALL_AT = (1, 2, 4, 8, 10, 100)
QUERIES, NEIGHBOURS = 4, 8  # of the page's ranked lists
SMALL = ("glyphs", "digits")


def compare(
    *,
    data: str,
    test: str | None = None,
    out: Path,
    losses: str | None = None,
    levels: str = "high",
    recipe: str | None = None,
    seeds: int = 5,
    trials: int = 8,
    steps: int | None = None,
    assignments: Sequence[str] = (),
    jobs: int = 1,
    pictures: bool = True,
) -> None:
    """Search, train and test each loss; write results.json, results.md and index.html in `out`.

    The arguments are those of `rll compare --help`.

    Raises:
        ValueError, OSError: the data, the losses or the settings are not right.
        ImportError: Optuna isn't installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ImportError("rll compare needs the package optuna: pip install 'rll_tf[compare]'")
    recipe = recipe or ("convnet" if data in SMALL else "folder")
    find_recipe(recipe)
    if steps is not None:
        assignments = (*assignments, f"steps={steps}")
    from rll_tf.training.comparison import parse_rows

    rows = parse_rows(losses, levels)
    run(lambda base, classes: rows, data=data, test=test, out=out, recipe=recipe, seeds=seeds, trials=trials,
        assignments=assignments, jobs=jobs, pictures=pictures)  # fmt: skip


def run(
    rows_for: Callable[[Settings, int], tuple[Row, ...]],
    *,
    data: str,
    test: str | None,
    out: Path,
    recipe: str,
    seeds: int,
    trials: int,
    assignments: Sequence[str],
    jobs: int,
    pictures: bool,
    validate: bool = True,
    describe: Callable[[dict[str, Any]], str] = lambda results: "Which loss is best on these pictures",
) -> None:
    """Run a comparison and write what it found.

    The arguments are those of `prepare` and of the command line; `describe` may add to what `results.json`
    will hold and returns the page's title.
    """
    from rll_tf.training.comparison import compare as run_comparison
    from rll_tf.training.comparison import format_results, summarise
    from rll_tf.training.comparison.page import write_comparison
    from rll_tf.training.files import write_json

    catalogue, other, comparison = prepare(
        rows_for, data, test, recipe, seeds, trials, assignments, validate=validate
    )
    rows = comparison.rows
    protocol = _protocol(comparison, catalogue, other, recipe)
    _begin(out, protocol)
    trainer = _RllTrain(comparison, catalogue, other, recipe, out, jobs)
    print(f"{len(rows)} rows, {comparison.runs} training runs in {out}; killed, the same command goes on")
    try:
        records = run_comparison(comparison, out, trainer, jobs=jobs, report=_say)
    finally:
        trainer.stop()
    results = {
        "data": catalogue.spec,
        "test": trainer.test_name,
        "backbone": comparison.base.backbone,
        "rows": summarise(records),
        "seeds": seeds,
        "trials": trials,
        "protocol": protocol,
        "shared_pictures": trainer.shared_pictures(),
        "command": " ".join(["rll", *sys.argv[1:]]),
        "jobs": jobs,
        **_versions(),
    }
    title = describe(results)
    write_json(out / "results.json", results)
    table = format_results(results)
    (out / "results.md").write_text(table, encoding="utf-8")
    page = write_comparison(out, results, title=title, **(trainer.lists(rows) if pictures else {}))
    print(table)
    print(f"results: {out / 'results.json'}, {out / 'results.md'}, {page}")


def prepare(
    rows_for: Callable[[Settings, int], tuple[Row, ...]],
    data: str,
    test: str | None,
    recipe_name: str,
    seeds: int,
    trials: int,
    assignments: Sequence[str],
    *,
    validate: bool = True,
) -> tuple[Catalogue, Catalogue | None, Comparison]:
    """The pictures, those of `--test` where it is given, and what is compared; no test picture is read.

    Args:
        rows_for: the base settings, and how many classes there are to train on -> the rows.
        data: the SPEC to train on.
        test: the SPEC to test on, or None.
        recipe_name: of the recipe whose settings are the base.
        seeds: of the final runs.
        trials: of each loss.
        assignments: the values of `--set`.
        validate: whether classes must be held out to choose parameters and checkpoints.

    Raises:
        ValueError: the settings or the data don't suffice.
    """
    from rll_tf.training import Settings
    from rll_tf.training.comparison import Comparison
    from trainers.data import open_data

    given = Settings().override(assignments)
    keys = {assignment.partition("=")[0] for assignment in assignments}
    if wrong := keys & {"loss", "levels", "seed", "validation_fold"}:
        raise ValueError(
            f"--set can't give {', '.join(sorted(wrong))}: --losses and --seeds say what is compared"
        )
    catalogue = open_data(data)
    other = None if test is None else open_data(test)
    share = 0.0
    if other is not None:
        if common := set(map(os.path.realpath, catalogue.without_test().paths)) & set(
            map(os.path.realpath, other.paths)
        ):
            raise ValueError(
                f"--test must hold other pictures than --data; got {len(common)} in both, "
                f"such as {min(common)}"
            )
    elif not catalogue.splits:
        share = given.test_share or TEST_SHARE
        catalogue = catalogue.set_apart(share)
    base = find_recipe(recipe_name).settings_for(catalogue.without_test(), assignments)
    changes: dict[str, Any] = {"test_share": share}
    classes = catalogue.without_test().class_count
    if validate and "validation" not in catalogue.splits and not base.validation_folds:
        if classes < FEW_CLASSES and "validation_share" not in keys:
            changes["validation_folds"] = min(FOLDS, classes // 2)
        elif not base.validation_share:
            changes["validation_share"] = VALIDATION_SHARE
    if "validate_every_steps" not in keys:
        changes["validate_every_steps"] = min(base.validate_every_steps, max(1, base.steps // 4))
    base = dataclasses.replace(base, **changes)
    smallest = _smallest(base, catalogue, validate)
    base = dataclasses.replace(base, classes_per_batch=min(base.classes_per_batch, smallest))
    rows = rows_for(base, smallest)
    comparison = Comparison(rows, base, smallest, trials, seeds)
    for row in rows:
        comparison.settings(row, {}, 0, 1)  # raises what is wrong with a row
    return catalogue, other, comparison


def _smallest(base: Settings, catalogue: Catalogue, validate: bool) -> int:
    """How many classes there are to train on in the smallest fold.

    Raises:
        ValueError: there is none to validate on, or fewer than two to train on.
    """
    counts = []
    for fold in range(1, max(1, base.validation_folds) + 1):
        split = dataclasses.replace(base, validation_fold=fold).split(catalogue)
        lacking = validate and "validation" not in split.splits
        if lacking or split.select("train").class_count < 2:
            raise ValueError(
                "a comparison needs at least 4 classes to train and validate on, with two pictures or more; "
                f"{catalogue.spec} has {catalogue.without_test().class_count}"
            )
        counts.append(split.select("train").class_count)
    return min(counts)


def _protocol(
    comparison: Comparison, catalogue: Catalogue, other: Catalogue | None, recipe: str
) -> dict[str, Any]:
    """What decides the numbers; a folder holds runs of one protocol."""
    from rll_tf.training.comparison.ranges import ranges_of

    training = catalogue.without_test()
    return {
        "data": catalogue.spec,
        "pictures": len(training),
        "classes": training.class_count,
        "test": None if other is None else other.spec,
        "recipe": recipe,
        "settings": dataclasses.asdict(comparison.base),
        "trials": comparison.trials,
        "seeds": comparison.seeds,
        "ranges": {
            row.loss: [dataclasses.asdict(each) for each in ranges_of(row.loss, comparison.base)]
            for row in comparison.rows
            if row.fixed is None
        },
        "fixed": {row.name: dict(row.fixed) for row in comparison.rows if row.fixed is not None},
    }


def _begin(out: Path, protocol: dict[str, Any]) -> None:
    """Write the protocol into a new folder, or check that an old one's is the same; its rows may differ."""
    import json

    from rll_tf.training.files import read_json, write_json

    file = out / "comparison.json"
    protocol = json.loads(json.dumps(protocol))
    if file.is_file():
        before = read_json(file)
        for name, value in protocol.items():
            if name == "ranges":
                continue
            if before.get(name) != value:
                was, now = _difference(before.get(name), value)
                raise ValueError(
                    f"{out} holds another comparison: its {name} is {was}; got {now}; take another --out"
                )
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, protocol)


def _difference(before: Any, now: Any) -> tuple[Any, Any]:
    """Both values; of dictionaries only what differs."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return before, now
    keys = [key for key in now if before.get(key) != now[key]]
    return {key: before.get(key) for key in keys}, {key: now[key] for key in keys}


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    from rll_tf.training.commit import source_commit

    names = ("tensorflow", "keras", "numpy", "optuna")
    return {
        "commit": source_commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in names if importlib.util.find_spec(name)},
        },
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
    }


def _say(line: str) -> None:
    print(line, flush=True)


class _RllTrain:
    """Trains with `rll train` in a process of its own, and tests in this one.

    A job's folder holds `run`, the run folder, and `log.txt`, what was printed. Only the final runs keep a
    model, their best.
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
        self.children: set[subprocess.Popen] = set()
        self.lock, self.stopped = threading.Lock(), False
        self.tested: tuple[Catalogue, Any] | None = None
        self.skipped: Any = None

    def stop(self) -> None:
        """Kill the trainings under way; each goes on from its last checkpoint another time."""
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
                reason = message.removeprefix("rll: ") if message else f"it ended with status {status}"
                reason = reason.replace(console.HINT, "mend or remove it, then the same command goes on")
                raise ValueError(f"training {folder} failed: {reason}")
        run.last_file.unlink(missing_ok=True)
        if folder.name.startswith("trial"):
            run.best_file.unlink(missing_ok=True)
        return _outcome(run, time.monotonic() - start, diverged)

    def _command(self, run: Any, settings: Settings) -> list[str]:
        words = ["train", self.recipe, "--out", str(run.folder), "--cache", str(self.out / "pictures")]
        if run.config_file.is_file():
            return [*words, "--resume"]
        words += ["--data", self.catalogue.spec]
        return words + [word for setting in _as_assignments(settings) for word in ("--set", setting)]

    def _process(self, words: list[str], log: Path) -> tuple[int, str]:
        """Run `rll`, its output into a file; return its status and its last line on standard error."""
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "trainers.child", *words]
        with log.open("a", encoding="utf-8") as stream:
            print("$ rll", *words, file=stream, flush=True)
            with self.lock:
                if self.stopped:
                    raise ValueError("stopped")
                child = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.PIPE, text=True,
                    env=self.environment,
                )  # fmt: skip
                self.children.add(child)
            # Not `communicate`, which would close standard input, by which the child knows that we live.
            assert child.stderr is not None
            lines = child.stderr.read().strip().splitlines()
            status = child.wait()
            with self.lock:
                self.children.discard(child)
            for pipe in (child.stdin, child.stderr):
                if pipe is not None:
                    pipe.close()
            print(*lines, sep="\n", file=stream)
        return status, lines[-1] if lines else ""

    def trained_classes(self, folder: Path) -> set[str]:
        """From the run's configuration."""
        from rll_tf.training import Run

        config = Run.open(folder / "run").config
        seen = {name for split in ("train", "validation") for name in config["classes"].get(split, ())}
        return {f"{config['data']}: {name}" for name in seen}

    def test_classes(self) -> set[str]:
        """The classes of the test pictures, each with its data set's name."""
        pictures = self._test_pictures()[0]
        return {f"{pictures.spec}: {pictures.class_names[label]}" for label in set(pictures.labels.tolist())}

    def test(self, folder: Path) -> dict[str, dict[str, float]]:
        """The metrics of a run's best checkpoint."""
        from rll_tf.training import Run

        run = Run.open(folder / "run")
        if not run.best_file.is_file():  # it diverged before its first checkpoint
            return self.untrained(run.settings)
        return self._metrics(run.best_model(), run.settings, folder / "lists.json")

    def untrained(self, settings: Settings) -> dict[str, dict[str, float]]:
        """The metrics of the network before training."""
        from rll_tf.training import build

        settings = dataclasses.replace(settings, loss="ranked_list", loss_parameters={})
        return self._metrics(build(settings), settings)

    @property
    def test_name(self) -> str:
        """What is tested on, in words."""
        pictures, in_gallery = self._test_pictures()
        of = f"{len(pictures):,} pictures of {pictures.class_count:,} classes"
        if self.skipped.reasons:
            of += f" ({len(self.skipped.reasons):,} damaged pictures left out)"
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
        from trainers.evaluate import query_and_gallery

        if self.tested is None:
            # After hours of training a damaged picture doesn't stop the test: it is left out and counted.
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


def _outcome(run: Any, seconds: float, diverged: bool) -> Outcome:
    """From a run's files."""
    from rll_tf.training import CONCAT
    from rll_tf.training.callbacks import best_epoch
    from rll_tf.training.comparison import Outcome
    from rll_tf.training.files import read_json

    epochs = [row for row in run.epochs() if "validation" in row]
    best = best_epoch(run)
    cost = read_json(run.cost_file) if run.cost_file.is_file() else {}
    return Outcome(
        validation=best["validation"][CONCAT]["map@r"] if best and "validation" in best else None,
        best_step=best["step"] if best else None,
        curve=tuple((row["step"], row["validation"][CONCAT]["map@r"]) for row in epochs),
        seconds=round(seconds, 1),
        diverged=diverged,
        **cost,
    )
