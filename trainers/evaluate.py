"""`rll evaluate`: how good a run's best checkpoint is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from rll_tf.data import Catalogue, open_dataset
from rll_tf.evaluation import concatenate_levels, format_table, write_report
from rll_tf.training import CONCAT, Run, evaluate_embeddings
from rll_tf.training import embed as embed_pictures
from rll_tf.training.files import write_json


def evaluate(
    folder: Path, data: str | None, split: str | None, json_file: Path | None, report: Path | None
) -> dict[str, Any]:
    """Print a table of each level's metrics and the concatenation's; write JSON and a page where asked.

    Returns:
        What the JSON file holds: `data`, `split`, `queries`, `classes`, `levels`.

    Raises:
        FileNotFoundError: `folder` is not a run, or a data set's path does not exist.
        ValueError: there is no such split.
    """
    run = Run.open(folder)
    model = run.best_model()
    pictures, split = _pictures(run, data, split)
    embeddings = embed_pictures(model, pictures, run.settings.preprocessing, progress=True)
    levels = evaluate_embeddings(embeddings, pictures.labels)
    result = {
        "data": pictures.spec,
        "split": split,
        "queries": len(pictures),
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
            data=pictures.spec,
            split=split,
            level=CONCAT,
            class_names=pictures.class_names,
        )
        print(f"report: {page}")
    print(f"{result['data']}, split {split}: {result['queries']} queries of {result['classes']} classes")
    print(format_table(levels))
    return result


def _pictures(run: Run, data: str | None, split: str | None) -> tuple[Catalogue, str]:
    """The pictures to judge on and the name of their split.

    Unless a split is named: a data set with splits of its own is judged on `test`, another folder than the
    run's whole, and the run's own folder, where no other is named, on the classes that it held out.
    """
    config = run.config
    catalogue = open_dataset(data or config["data"])
    has_splits = bool(catalogue.splits)
    if not has_splits and catalogue.spec == config["data"]:
        catalogue = catalogue.hold_out(run.settings.validation_share, run.settings.seed)
    if split is None:
        if has_splits:
            split = "test"
        elif data is None and "validation" in catalogue.splits:
            split = "validation"
        else:
            split = "all"
    return catalogue.select(split), split
