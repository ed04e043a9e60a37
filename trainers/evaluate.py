"""`rll evaluate`: how good the best checkpoint of a run is, or of several."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rll_tf.data import Catalogue, Skipped, printable, skip_corrupt
from rll_tf.evaluation import concatenate_levels, format_table, retrieval_metrics, write_report
from rll_tf.progress import waiting
from rll_tf.training import CONCAT, Run, check_same_pictures, evaluate_embeddings
from rll_tf.training import embed as embed_pictures
from rll_tf.training.callbacks import best_epoch
from rll_tf.training.files import read_lines, write_json
from serving.gallery import is_gallery, open_gallery
from trainers.data import open_data, select_split

# How a data set with such splits is evaluated, and what the result calls it.
QUERY_AGAINST_GALLERY = "query against gallery"


def evaluate(
    folders: Sequence[Path],
    *,
    data: str | None = None,
    split: str | None = None,
    json_file: Path | None = None,
    report: Path | None = None,
    skip: bool = False,
) -> None:
    """Print a table of each level's metrics and the concatenation's; write JSON and a page to given paths.

    A data set with the splits `query` and `gallery` is evaluated with each query against the gallery, unless
    another split is named. Several runs must be evaluated on the same pictures; the table and the page have
    the metrics of all, the page's pictures are searched by the first.

    The arguments are those of `rll evaluate --help`. On the page, every picture is a query among all.

    What `rll embed` wrote is evaluated as it is, at its one level.

    Raises:
        FileNotFoundError: a folder is not a run, or a data set's path does not exist.
        ValueError: there is no such split, or the runs' pictures differ.
    """
    if len(folders) == 1 and is_gallery(folders[0]):
        if data is not None or split is not None or report is not None or skip:
            raise ValueError(
                f"--data, --split, --report and --skip-corrupt are for runs; {folders[0]} is a gallery"
            )
        _evaluate_gallery(folders[0], json_file)
        return
    runs = [Run.open(folder) for folder in folders]
    models = [run.best_model() for run in runs]
    pictures, chosen, skipped = _pictures(runs[0], data, split, skip)
    for run in runs[1:]:
        others, other_split, _ = _pictures(run, data, split, skip)
        if (others.spec, other_split) != (pictures.spec, chosen) or others.paths != pictures.paths:
            raise ValueError(
                "runs must be evaluated on the same pictures: name them with --data and --split; "
                f"got {pictures.spec}, split {chosen}, and {others.spec}, split {other_split}"
            )
    in_gallery, protocol = None, "Every picture is a query against all the others."
    if chosen == QUERY_AGAINST_GALLERY:
        pictures, in_gallery = query_and_gallery(pictures)
        protocol = "Every picture of the split query is a query against those of the split gallery."
    levels, shown = [], None
    for run, model in zip(runs, models, strict=True):
        embeddings = embed_pictures(model, pictures, run.settings.preprocessing)
        levels.append(evaluate_embeddings(embeddings, pictures.labels, in_gallery=in_gallery))
        shown = concatenate_levels(embeddings) if shown is None else shown
    by_run = {str(run.folder): each for run, each in zip(runs, levels, strict=True)}
    several = len(runs) > 1
    rows = {f"{name}, {level}": each[level] for name, each in by_run.items() for level in each}
    rows = rows if several else levels[0]
    result: dict[str, Any] = {
        "data": pictures.spec,
        "split": chosen,
        "queries": len(pictures) if in_gallery is None else int((~in_gallery).sum()),
        "classes": pictures.class_count,
        **({"runs": by_run} if several else {"levels": levels[0]}),
    }
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(json_file, result)
    if report is not None and shown is not None:
        with waiting("writing the report"):
            page = write_report(
                report,
                metrics=rows,
                embeddings=shown,
                labels=pictures.labels,
                image=lambda index: Image.open(io.BytesIO(pictures.encoded(index))),
                data=printable(pictures.spec),
                split=chosen,
                level=f"{runs[0].folder}, {CONCAT}" if several else CONCAT,
                class_names=pictures.class_names,
                facts=_facts(runs, result),
                protocol=protocol,
                curves=_curves(runs),
            )
        print(f"report: {page}")
    counts = f"{result['queries']} queries of {result['classes']} classes"
    print(f"{printable(pictures.spec)}, split {chosen}: {counts}")
    print(format_table(rows))
    if skipped is not None:
        print("\n".join(skipped.report()))


def _evaluate_gallery(file: Path, json_file: Path | None) -> None:
    gallery = open_gallery(file)
    labels = gallery["labels"]
    levels = {str(gallery["level"]): retrieval_metrics(gallery["embeddings"], labels)}
    classes = len(np.unique(labels))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        result = {"data": str(file), "split": "all", "queries": len(labels), "classes": classes}
        write_json(json_file, {**result, "levels": levels})
    print(f"{printable(str(file))}: {len(labels)} queries of {classes} classes")
    print(format_table(levels))


def _facts(runs: Sequence[Run], result: dict[str, Any]) -> dict[str, str]:
    """What the page says of the first run, and which others stand beside it."""
    run = runs[0]
    config, best = run.config, best_epoch(run.epochs())
    commit, dirty, _ = str(config.get("commit") or "unknown").partition("-dirty")
    facts = {
        "run": printable(str(run.folder)),
        "recipe": config.get("recipe") or "none",
        "checkpoint": f"step {best['step']:,} of {run.settings.steps:,}" if best else "the last",
        "trained": _date(run.best_file.stat().st_mtime),
        "commit": commit[:12] + dirty,
        "evaluated": _date(None),
    }
    if len(runs) > 1:
        facts["beside it"] = ", ".join(printable(str(each.folder)) for each in runs[1:])
    if result["split"] == QUERY_AGAINST_GALLERY:
        facts["queries"] = f"{result['queries']:,}"
    return facts


def _date(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _curves(runs: Sequence[Run]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Losses, mined shares and validation metrics over the steps: of one run by level, of several by run."""
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}

    def add(chart: str, line: str, step: float, value: float) -> None:
        charts.setdefault(chart, {}).setdefault(line, []).append((step, value))

    for run in runs:
        name = printable(str(run.folder))
        for row in read_lines(run.steps_file):
            if len(runs) > 1:
                add("loss of a step", name, row["step"], row["loss"])
                continue
            for key, value in row.items():
                level, _, kind = key.rpartition("_")
                if kind == "loss":
                    add("loss of a step", level or "sum", row["step"], value)
                elif kind == "share":
                    level, _, sign = level.rpartition("_")
                    chart = f"queries with a mined {sign}, percent"
                    add(chart, level or "all", row["step"], 100 * value)
        for row in run.epochs():
            for level, metrics in row.get("validation", {}).items():
                if len(runs) == 1 or level == CONCAT:
                    for metric, heading in (("recall@1", "Recall@1"), ("map@r", "MAP@R")):
                        chart = f"validation {heading}, percent"
                        add(chart, level if len(runs) == 1 else name, row["step"], 100 * metrics[metric])
    order = [*runs[0].settings.levels, "sum", CONCAT]  # so that a level has one colour
    return {
        chart: {
            name: lines[name]
            for name in sorted(lines, key=lambda name: order.index(name) if name in order else 0)
        }
        for chart, lines in charts.items()
    }


def _pictures(
    run: Run, data: str | None, split: str | None, skip: bool
) -> tuple[Catalogue, str, Skipped | None]:
    """The pictures to evaluate on, the name of their split, and what was skipped if `skip`.

    Unless a split is named: of a data set with splits of its own `test`, or `query` against `gallery` where
    it has these; of another folder than the run's all pictures, and of the run's own folder, where no other
    is named, the classes that it held out.
    """
    config = run.config
    catalogue = open_data(config["data"] if data is None else data)
    is_own = catalogue.spec == config["data"]
    if is_own:
        catalogue = catalogue.set_apart(run.settings.test_share)
    skipped = None
    if skip or (is_own and config.get("skip_corrupt")):
        catalogue, skipped = skip_corrupt(catalogue)
    has_splits = bool(catalogue.splits)
    if is_own:
        catalogue = run.settings.split(catalogue)
    if split is None:
        if {"query", "gallery"} <= catalogue.splits.keys():
            split = QUERY_AGAINST_GALLERY
        elif has_splits:
            split = "test"
        elif data is None and "validation" in catalogue.splits:
            split = "validation"
        else:
            split = "all"
    if split == QUERY_AGAINST_GALLERY:
        return catalogue, split, skipped
    if is_own and split in ("train", "validation"):
        check_same_pictures(config, catalogue)
    return select_split(catalogue, split), split, skipped


def query_and_gallery(catalogue: Catalogue) -> tuple[Catalogue, np.ndarray]:
    """The pictures of both splits, queries first, and which are the gallery's: [n] bool."""
    query, gallery = catalogue.splits["query"], catalogue.splits["gallery"]
    in_gallery = np.repeat([False, True], [len(query), len(gallery)])
    return catalogue.take(np.concatenate([query, gallery])), in_gallery
