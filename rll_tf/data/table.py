"""A user's own table of pictures."""

from __future__ import annotations

import csv
import dataclasses
import os
from pathlib import Path

from rll_tf.data.catalogue import Catalogue

COLUMNS = ("path", "label")


def table(path: str | os.PathLike[str]) -> Catalogue:
    """Catalogue the pictures that a CSV file lists, in its order.

    Its first line names the columns: `path`, relative to the file's folder or absolute, `label`, and where
    pictures have them `split` (`train`, `validation`, `test`, `query`, `gallery`), empty for a picture in
    none. Other columns are ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, there is no picture, or two splits share a class.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"csv:FILE needs a table of pictures; there is no file {file}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} must be a table in UTF-8: {error}") from error
    if not rows or any(not row.get(column) for row in rows for column in COLUMNS):
        raise ValueError(f"{file} must have a first line with path,label and both in every line after it")
    splits = [row["split"] or "" for row in rows] if "split" in rows[0] else None
    files = [file.parent / row["path"] for row in rows]
    catalogue = Catalogue.from_files(files, [row["label"] for row in rows], splits)
    return dataclasses.replace(catalogue, spec=f"csv:{path}")
