"""`rll evaluate`: how good a run's best checkpoint is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rll_tf.data import Catalogue, Skipped, open_dataset, printable, skip_corrupt
from rll_tf.evaluation import concatenate_levels, format_table, write_report
from rll_tf.training import CONCAT, Run, check_same_pictures, evaluate_embeddings
from rll_tf.training import embed as embed_pictures
from rll_tf.training.files import write_json

# What a data set with such splits is judged on, and what the result calls it.
QUERY_AGAINST_GALLERY = "query against gallery"


def evaluate(
    folder: Path,
    data: str | None,
    split: str | None,
    json_file: Path | None,
    report: Path | None,
    skip: bool = False,
) -> dict[str, Any]:
    """Print a table of each level's metrics and the concatenation's; write JSON and a page where asked.

    A data set with the splits `query` and `gallery` is judged with each query against the gallery, unless
    another split is named.

    Args:
        folder: the run.
        data: the SPEC to judge on, or None for the run's own.
        split: a split's name, or None.
        json_file: where to write the metrics.
        report: a folder to write a page with pictures into, on which every picture is sought among all.
        skip: leave out pictures that can't be read or decoded, and list them.

    Returns:
        What the JSON file holds: `data`, `split`, `queries`, `classes`, `levels`.

    Raises:
        FileNotFoundError: `folder` is not a run, or a data set's path does not exist.
        ValueError: there is no such split.
    """
    run = Run.open(folder)
    model = run.best_model()
    pictures, split, skipped = _pictures(run, data, split, skip)
    in_gallery = None
    if split == QUERY_AGAINST_GALLERY:
        pictures, in_gallery = _query_and_gallery(pictures)
    embeddings = embed_pictures(model, pictures, run.settings.preprocessing, progress=True)
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
    return result


def _pictures(
    run: Run, data: str | None, split: str | None, skip: bool
) -> tuple[Catalogue, str, Skipped | None]:
    """The pictures to judge on, the name of their split, and what was skipped if that was asked for.

    Unless a split is named: a data set with splits of its own is judged on `test`, or on `query` against
    `gallery` where it has these; another folder than the run's whole, and the run's own folder, where no
    other is named, on the classes that it held out.
    """
    config = run.config
    catalogue = open_dataset(config["data"] if data is None else data)
    is_own = catalogue.spec == config["data"]
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
    return catalogue.select(split), split, skipped


def _query_and_gallery(catalogue: Catalogue) -> tuple[Catalogue, np.ndarray]:
    """The pictures of both splits, queries first, and which are the gallery's: [n] bool."""
    query, gallery = catalogue.splits["query"], catalogue.splits["gallery"]
    in_gallery = np.repeat([False, True], [len(query), len(gallery)])
    return catalogue.take(np.concatenate([query, gallery])), in_gallery
