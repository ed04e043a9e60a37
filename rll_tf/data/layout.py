"""What the readers of official layouts share: finding a tree, reading its lists, asserting its counts.

A reader takes the path of a tree and the counts to assert, by default those published. It raises
FileNotFoundError where a list or a picture is missing, ValueError where a list is broken or counts differ.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rll_tf.data.catalogue import Catalogue, counted
from rll_tf.progress import progress


class Counts(NamedTuple):
    """How many classes and pictures a split must have."""

    classes: int
    pictures: int

    def __str__(self) -> str:
        return f"{counted(self.pictures, 'picture')} of {counted(self.classes, 'class')}"


def find_tree(name: str, path: str | os.PathLike[str], tops: Sequence[str], file: str) -> Path:
    """The directory that holds `file`: `path` itself or one of `tops` below it.

    A top may hold another of its name: an archive that was unpacked into a folder made for it.

    Raises:
        FileNotFoundError: none does; the message says which file was looked for and where.
    """
    root = Path(path).expanduser()
    candidates = [root, *(root / top for top in tops), *(root / top / top for top in tops)]
    for directory in candidates:
        if (directory / file).is_file():
            return directory
    raise missing(name, file, candidates)


def doubled(root: Path, top: str) -> str:
    """What precedes `top` below `root`: `top/` where its archive was unpacked into a folder made for it."""
    return f"{top}/" if (root / top / top).is_dir() else ""


def missing(name: str, file: str, directories: Iterable[Path]) -> FileNotFoundError:
    """The error that a data set's file is in none of these directories."""
    looked = ", ".join(str(directory) for directory in directories)
    return FileNotFoundError(
        f"{name} needs the file {file}; looked in {looked} (rll datasets lists what each data set needs)"
    )


def split_by_class_id(name: str, labels: np.ndarray, expected: Mapping[str, Counts]) -> dict[str, np.ndarray]:
    """The first classes' pictures for "train", the others' for "test", as metric learning does.

    Args:
        name: of the data set, for the error.
        labels: [n], class ids less 1.
        expected: the counts, which say how many classes "train" has and how many there are in all.

    Raises:
        ValueError: a class id is out of range.
    """
    count = sum(counts.classes for counts in expected.values())
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= count:
        raise ValueError(
            f"{name}: expected class ids from 1 to {count}; found {labels.min() + 1} to {labels.max() + 1}"
        )
    train = labels < expected["train"].classes
    return {"train": np.flatnonzero(train), "test": np.flatnonzero(~train)}


def rows(file: Path, columns: int, skip: int = 0) -> Iterator[list[str]]:
    """The whitespace-separated columns of each line, after `skip` lines of heading; the last may hold spaces.

    Raises:
        ValueError: a line has fewer columns; the message names it.
    """
    # utf-8-sig removes the mark that editors on Windows put before the first column.
    text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        if number <= skip or not line.strip():
            continue
        values = line.split(maxsplit=columns - 1)
        if len(values) < columns:
            raise ValueError(f"{file} line {number} must have {columns} columns; got {line!r}")
        values[-1] = values[-1].rstrip()
        yield values


def number(file: Path, text: str) -> int:
    """A whole number of an annotation file.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{file} must hold whole numbers here; got {text!r}") from None


def check(name: str, catalogue: Catalogue, expected: Mapping[str, Counts], root: Path) -> Catalogue:
    """Assert the counts of every split and that every picture file is there, once.

    Raises:
        ValueError: a split has another number of classes or pictures than published, or a file is listed
            twice; both numbers are named.
        FileNotFoundError: picture files are missing; the message says how many of how many, and the first.
        OSError: a directory of pictures is there but can't be read.
    """
    for split, counts in expected.items():
        selected = catalogue.select(split)
        found = Counts(selected.class_count, len(selected))
        if found != counts:
            raise ValueError(f"{name}: expected split {split!r} to have {counts}; found {found} in {root}")
    total, names = len(catalogue), sorted(catalogue.paths)
    twice = [path for path, following in itertools.pairwise(names) if path == following]
    if twice:
        raise ValueError(
            f"{name}: expected {total:,} different picture files; the lists in {root} name "
            f"{total - len(twice):,}, the first that they name twice is {twice[0]}"
        )
    absent = absent_files(catalogue.paths)
    if absent:
        raise FileNotFoundError(
            f"{name}: expected {total:,} picture files; found {total - len(absent):,} in {root}, "
            f"the first that is missing is {absent[0]}"
        )
    return catalogue


def absent_files(paths: Iterable[str]) -> list[str]:
    """Those of `paths` that are no files of their directories, nor links to files, in order.

    Directories are listed once each, which is far quicker on a network disk than a look at every file.

    Raises:
        OSError: a directory exists but can't be read; the error names it.
    """
    files_of = functools.cache(_files_of)
    found = progress(paths, "looking for the pictures' files")
    return [path for path in found if os.path.basename(path) not in files_of(os.path.dirname(path))]


def _files_of(directory: str) -> set[str]:
    try:
        with os.scandir(directory) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
