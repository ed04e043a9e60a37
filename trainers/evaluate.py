"""`rll evaluate`: how good the best checkpoint of a run is, or of several."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rll_tf.data import Catalogue, Skipped, counted, printable, skip_corrupt
from rll_tf.evaluation import format_table, retrieval_metrics
from rll_tf.progress import say
from rll_tf.training import Run, check_same_pictures, evaluate_embeddings
from rll_tf.training import embed as embed_pictures
from rll_tf.training.files import write_json
from serving.gallery import is_gallery, open_gallery
from trainers.data import QUERY_AGAINST_GALLERY, open_data, query_and_gallery, select_split
from trainers.run_page import write_page


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

    A line on standard error says how many of the classes that `data` names a run was trained on.

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
    pictures, chosen, skipped = _pictures_of_all(runs, data, split, skip)
    in_gallery = None
    if chosen == QUERY_AGAINST_GALLERY:
        pictures, in_gallery = query_and_gallery(pictures)
    levels, first = [], None
    for run, model in zip(runs, models, strict=True):
        embeddings = embed_pictures(model, pictures, run.settings.preprocessing)
        levels.append(evaluate_embeddings(embeddings, pictures.labels, in_gallery=in_gallery))
        first = first or embeddings
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
    if report is not None and first is not None:
        print(f"report: {write_page(report, runs, pictures, first, result, rows)}")
    counts = f"{counted(result['queries'], 'query')} of {counted(result['classes'], 'class')}"
    print(f"{printable(pictures.spec)}, split {chosen}: {counts}")
    print(format_table(rows))
    if skipped is not None:
        print("\n".join(skipped.report()))
    if data is not None:
        for run in runs:
            _warn_of_trained(run, pictures)


def _warn_of_trained(run: Run, pictures: Catalogue) -> None:
    """One line on standard error, if a run was trained on classes of these names: they flatter it."""
    names = pictures.classes
    if trained := names.intersection(run.config["classes"].get("train", ())):
        say(
            f"warning: {run.folder} was trained on {len(trained)} of these {counted(len(names), 'class')}, "
            "by their names: the metrics are not those of classes never seen"
        )


def _evaluate_gallery(file: Path, json_file: Path | None) -> None:
    gallery = open_gallery(file)
    labels = gallery["labels"]
    levels = {str(gallery["level"]): retrieval_metrics(gallery["embeddings"], labels)}
    classes = len(np.unique(labels))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        result = {"data": str(file), "split": "all", "queries": len(labels), "classes": classes}
        write_json(json_file, {**result, "levels": levels})
    print(f"{printable(str(file))}: {counted(len(labels), 'query')} of {counted(classes, 'class')}")
    print(format_table(levels))


def _pictures_of_all(
    runs: Sequence[Run], data: str | None, split: str | None, skip: bool
) -> tuple[Catalogue, str, Skipped | None]:
    """As `_pictures`, of all runs, which must have the same."""

    @functools.cache  # skipping decodes every picture
    def opened(spec: str, test_share: float, skip: bool) -> tuple[Catalogue, Skipped | None]:
        catalogue = open_data(spec).set_apart(test_share)
        return skip_corrupt(catalogue) if skip else (catalogue, None)

    found = [_pictures(run, opened, data, split, skip) for run in runs]
    pictures, chosen, _ = found[0]
    for run, (others, other_split, _) in zip(runs, found, strict=True):
        if (others.spec, other_split) != (pictures.spec, chosen):
            raise ValueError(
                "runs must be evaluated on the same pictures: name them with --data and --split; "
                f"got {pictures.spec}, split {chosen}, and {others.spec}, split {other_split}"
            )
        if others.paths != pictures.paths:
            raise ValueError(
                f"runs must be evaluated on the same pictures: {runs[0].folder} and {run.folder} held out "
                f"different classes of {pictures.spec} (split {chosen}); name pictures that neither was "
                "trained on with --data"
            )
    return found[0]


def _pictures(
    run: Run,
    opened: Callable[[str, float, bool], tuple[Catalogue, Skipped | None]],
    data: str | None,
    split: str | None,
    skip: bool,
) -> tuple[Catalogue, str, Skipped | None]:
    """The pictures to evaluate on, the name of their split, and what was skipped if `skip`.

    Unless a split is named: of a data set with splits of its own `test`, or `query` against `gallery` where
    it has these; of another folder than the run's all pictures, and of the run's own folder, where no other
    is named, the classes that it held out.
    """
    config = run.config
    spec = config["data"] if data is None else data
    is_own = spec == config["data"]
    skip = skip or (is_own and config.get("skip_corrupt", False))
    catalogue, skipped = opened(spec, run.settings.test_share if is_own else 0, skip)
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
