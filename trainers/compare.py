"""`rll compare`: which loss is best on these pictures."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.compare_trainer import RllTrain
from trainers.recipes import find_recipe

if TYPE_CHECKING:
    from rll_tf.data import Catalogue
    from rll_tf.training import Settings
    from rll_tf.training.comparison import Comparison, Row

TEST_SHARE = 0.5  # of a folder's classes, as in the paper's protocol
FEW_CLASSES, FOLDS = 40, 4
VALIDATION_SHARE = 0.15  # where a recipe holds none out
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
    from rll_tf.files import replacing
    from rll_tf.training.comparison import compare as run_comparison
    from rll_tf.training.comparison import format_results, summarise
    from rll_tf.training.comparison.page import write_comparison
    from rll_tf.training.files import write_json

    catalogue, other, comparison = prepare(
        rows_for, data, test, recipe, seeds, trials, assignments, validate=validate
    )
    rows = comparison.rows
    same_names = _same_names(catalogue, other)
    if same_names:
        print(f"note: {same_names}")
    protocol = _protocol(comparison, catalogue, other, recipe)
    _begin(out, protocol)
    trainer = RllTrain(comparison, catalogue, other, recipe, out, jobs)
    print(
        f"{len(rows)} rows, {comparison.runs} training runs in {out}; if killed, the same command continues"
    )
    records = run_comparison(comparison, out, trainer, jobs=jobs, report=_say)
    results = {
        "data": catalogue.spec,
        "test": trainer.test_name,
        "backbone": comparison.base.backbone,
        "rows": summarise(records),
        "seeds": seeds,
        "trials": trials,
        "protocol": protocol,
        "shared_pictures": trainer.shared_pictures(),
        "notes": [same_names] if same_names else [],
        "command": shlex.join(["rll", *sys.argv[1:]]),
        "jobs": jobs,
        **_versions(),
    }
    title = describe(results)
    write_json(out / "results.json", results)
    table = format_results(results)
    with replacing(out / "results.md") as partial:
        partial.write_text(table, encoding="utf-8")
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
    elif not catalogue.test_indices.size:
        raise ValueError(f"{data} has the splits {', '.join(catalogue.splits)} and no test: give --test")
    base = find_recipe(recipe_name).settings_for(catalogue.without_test(), assignments)
    changes: dict[str, Any] = {"test_share": share}
    classes = catalogue.without_test().class_count
    if validate and "validation" not in catalogue.splits and not base.validation_folds:
        if classes < FEW_CLASSES and "validation_share" not in keys:
            if classes < 4:
                raise _too_few(catalogue)
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


def _same_names(catalogue: Catalogue, other: Catalogue | None) -> str:
    """What to say of classes to train on and test classes with the same name, if there are such."""
    from rll_tf.data import counted

    if other is None:
        return ""
    tested = other.select("test") if "test" in other.splits else other
    same = sorted(catalogue.without_test().classes & tested.classes)
    if not same:
        return ""
    return (
        f"{counted(len(same), 'class')} of {other.spec} and of {catalogue.spec} have the same name, such as "
        f"{same[0]}: if they are the same, they aren't classes never seen"
    )


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
            raise _too_few(catalogue)
        counts.append(split.select("train").class_count)
    return min(counts)


def _too_few(catalogue: Catalogue) -> ValueError:
    return ValueError(
        "a comparison needs at least 4 classes to train and validate on, with two pictures or more; "
        f"{catalogue.spec} has {catalogue.without_test().class_count} besides its test classes"
    )


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
        "test_pictures": len(catalogue.test_indices) if other is None else len(other),
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
            was = before.get(name)
            now = value
            if name == "ranges":  # other rows may be in the folder
                was, now = ({loss: of[loss] for loss in was.keys() & value} for of in (was, value))
            if was != now:
                was, now = _difference(was, now)
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
