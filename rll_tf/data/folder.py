"""A user's own folder of pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from rll_tf.data.catalogue import Catalogue, printable
from rll_tf.data.layout import is_file

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def folder(path: str | os.PathLike[str]) -> Catalogue:
    r"""Catalogue a folder: a class is every directory that holds pictures, however deep.

    A class is named by its path relative to `path` (with `/`, and bytes that are not UTF-8 as `\xff`);
    pictures lying in `path` itself are the class `.`. A file is a picture by its suffix (`.bmp .gif .jpeg
    .jpg .png .webp`, any case); pipes, sockets and devices are none. Hidden files and directories are
    skipped; a directory reached twice through symbolic links is read once. Classes and pictures are in sorted
    order, so the catalogue does not depend on the file system's.

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
    classes = _pictures_by_directory(root)
    if not classes:
        raise ValueError(
            f"{root} holds no pictures; expected one directory a class with files ending in "
            + ", ".join(PICTURE_SUFFIXES)
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


def _pictures_by_directory(root: Path) -> dict[str, list[str]]:
    """Relative directory -> the pictures in it, sorted."""
    classes: dict[str, list[str]] = {}
    seen: set[str] = set()
    pending = [str(root)]
    while pending:
        directory = pending.pop()
        real = os.path.realpath(directory)
        if real in seen:  # a loop of symbolic links, or two links to one directory
            continue
        seen.add(real)
        pictures, subdirectories = _entries(directory)
        pending += reversed(subdirectories)
        if pictures:
            classes[Path(directory).relative_to(root).as_posix()] = pictures
    return classes


def _entries(directory: str) -> tuple[list[str], list[str]]:
    """The pictures and the directories in a directory, both sorted."""
    pictures, subdirectories = [], []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                subdirectories.append(entry.path)
            elif entry.name.lower().endswith(PICTURE_SUFFIXES) and _is_picture(entry):
                pictures.append(entry.path)
    return sorted(pictures), sorted(subdirectories)


def _is_picture(entry: os.DirEntry[str]) -> bool:
    """A file or a link to one; also a link to nowhere, so that it is named when it is read.

    Not a pipe, a socket or a device: reading these may never end.
    """
    return is_file(entry) or (entry.is_symlink() and not os.path.exists(entry.path))
