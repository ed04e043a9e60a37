"""`rll evaluate`: how good a run's best checkpoint is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rll_tf.data import Catalogue, Skipped, printable, skip_corrupt
from rll_tf.evaluation import concatenate_levels, format_table, write_report
from rll_tf.progress import waiting
from rll_tf.training import CONCAT, Run, check_same_pictures, evaluate_embeddings
from rll_tf.training import embed as embed_pictures
from rll_tf.training.files import write_json
from trainers.data import open_data, select_split

# How a data set with such splits is evaluated, and what the result calls it.
QUERY_AGAINST_GALLERY = "query against gallery"


def evaluate(
    folder: Path,
    *,
    data: str | None = None,
    split: str | None = None,
    json_file: Path | None = None,
    report: Path | None = None,
    skip: bool = False,
) -> None:
    """Print a table of each level's metrics and the concatenation's; write JSON and a page to given paths.

    A data set with the splits `query` and `gallery` is evaluated with each query against the gallery, unless
    another split is named.

    The arguments are those of `rll evaluate --help`. On the page, every picture is a query among all.

    Raises:
        FileNotFoundError: `folder` is not a run, or a data set's path does not exist.
        ValueError: there is no such split.
    """
    run = Run.open(folder)
    model = run.best_model()
    pictures, split, skipped = _pictures(run, data, split, skip)
    in_gallery = None
    if split == QUERY_AGAINST_GALLERY:
        pictures, in_gallery = query_and_gallery(pictures)
    embeddings = embed_pictures(model, pictures, run.settings.preprocessing)
    levels = evaluate_embeddings(embeddings, pictures.labels, in_gallery=in_gallery)
    result: dict[str, Any] = {
        "data": pictures.spec,
        "split": split,
        "queries": len(pictures) if in_gallery is None else int((~in_gallery).sum()),
        "classes": pictures.class_count,
        "levels": levels,
    }
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(json_file, result)
    if report is not None:
        with waiting("writing the report"):
            page = write_report(
                report,
                metrics=levels,
                embeddings=concatenate_levels(embeddings),
                labels=pictures.labels,
                image=lambda index: Image.open(io.BytesIO(pictures.encoded(index))),
                data=printable(pictures.spec),
                split=split,
                level=CONCAT,
                class_names=pictures.class_names,
            )
        print(f"report: {page}")
    counts = f"{result['queries']} queries of {result['classes']} classes"
    print(f"{printable(pictures.spec)}, split {split}: {counts}")
    print(format_table(levels))
    if skipped is not None:
        print("\n".join(skipped.report()))


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
