"""A user's own folder of pictures."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from pathlib import Path
from typing import NoReturn

import numpy as np

from rll_tf.data.catalogue import Catalogue, counted, printable
from rll_tf.progress import progress

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def folder(path: str | os.PathLike[str]) -> Catalogue:
    r"""Catalogue a folder: a class is every directory that holds pictures, however deep.

    A class is named by its path relative to `path` (with `/`, and bytes that are not UTF-8 as `\xff`);
    pictures lying in `path` itself are the class `.`. A file is a picture by its suffix (`.bmp .gif .jpeg
    .jpg .png .webp`, any case); pipes, sockets and devices are none. Files of other suffixes are left out,
    and a warning counts them. Hidden files and directories are skipped; a directory reached twice through
    symbolic links is read once. Classes and pictures are in sorted order, so the catalogue does not depend on
    the file system's.

    Returns:
        A catalogue of paths without splits: which classes to hold out is the caller's choice.

    Raises:
        FileNotFoundError: `path` is not a directory.
        PermissionError: a directory below `path` can't be read.
        ValueError: no directory below `path` holds a picture.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        what = "is not a directory" if root.exists() else "does not exist"
        raise FileNotFoundError(f"folder:PATH needs a directory of pictures; {root} {what}")
    classes, others = _pictures_by_directory(root)
    left_out = ", ".join(f"{count:,} {printable(kind) or 'without'}" for kind, count in others.most_common())
    if not classes:
        raise ValueError(
            f"{root} holds no pictures; expected one directory per class with files ending in "
            + ", ".join(PICTURE_SUFFIXES)
            + (f"; found other files, by suffix: {left_out}" if left_out else "")
        )
    if left_out:
        warnings.warn(
            f"{printable(str(root))}: {counted(others.total(), 'file')} of other kinds left out, by suffix: "
            f"{left_out}; pictures are {', '.join(PICTURE_SUFFIXES)}",
            stacklevel=3,
        )
    # Distinct directories stay distinct classes, even if their printable names are the same.
    directories = sorted(classes, key=lambda directory: (printable(directory), directory))
    return Catalogue(
        spec=f"folder:{path}",
        paths=tuple(file for directory in directories for file in classes[directory]),
        labels=np.repeat(
            np.arange(len(directories)), [len(classes[directory]) for directory in directories]
        ).astype(np.int64),
        class_names=tuple(printable(directory) for directory in directories),
    )


def _pictures_by_directory(root: Path) -> tuple[dict[str, list[str]], Counter[str]]:
    """Relative directory -> the pictures in it, sorted; and how many other files have which suffix."""
    classes: dict[str, list[str]] = {}
    others: Counter[str] = Counter()
    seen: set[str] = set()
    tree = os.walk(root, onerror=_raise, followlinks=True)
    for directory, subdirectories, files in progress(tree, "reading the folder", unit=" directories"):
        real = os.path.realpath(directory)
        if real in seen:  # a loop of symbolic links, or two links to one directory
            subdirectories.clear()
            continue
        seen.add(real)
        subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
        paths = [os.path.join(directory, name) for name in sorted(files) if not name.startswith(".")]
        if pictures := [path for path in paths if _is_picture(path)]:
            classes[Path(directory).relative_to(root).as_posix()] = pictures
        others.update(_suffix(path) for path in paths if not _is_picture(path) and os.path.isfile(path))
    return classes, others


def _raise(error: OSError) -> NoReturn:
    raise error


def _is_picture(path: str) -> bool:
    """A file or a link to one; also a link to nowhere, so that it is named when it is read.

    Not a pipe, a socket or a device: reading these may never end.
    """
    return is_picture_name(path) and (os.path.isfile(path) or not os.path.exists(path))


def is_picture_name(path: str) -> bool:
    """Whether a file is a picture by its suffix."""
    return _suffix(path) in PICTURE_SUFFIXES


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()
