"""CUB-200-2011: photographs of 200 species of birds."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from rll_tf.data.catalogue import Catalogue
from rll_tf.data.layout import Counts, check, find_tree, number, rows, split_by_class_id

COUNTS = {"train": Counts(100, 5_864), "test": Counts(100, 5_924)}


def cub200(path: str | os.PathLike[str], expected: Mapping[str, Counts] = COUNTS) -> Catalogue:
    """Catalogue CUB-200-2011 as its archive unpacks, whole pictures without boxes.

    `path` is `CUB_200_2011` or the directory above it, with

        images.txt               <picture id> <path below images/>
        image_class_labels.txt   <picture id> <class id, from 1>
        images/001.Black_footed_Albatross/….jpg

    Returns:
        The pictures in the order of their ids; label 0 is class id 1. The classes are split in half in the
        order of their ids, as metric learning does: "train" holds 1 to 100, "test" 101 to 200. The archive's
        own train_test_split.txt is for classification and not read.

    Source: Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset" (2011); the paper, section 4.1.
    """
    root = find_tree("cub200", path, ["CUB_200_2011"], "images.txt")
    find_tree("cub200", root, [], "image_class_labels.txt")
    lists = root / "images.txt", root / "image_class_labels.txt"
    files = dict(rows(lists[0], 2))
    classes = {picture: number(lists[1], text) for picture, text in rows(lists[1], 2)}
    if files.keys() != classes.keys():
        raise ValueError(
            f"cub200: expected {lists[1]} to label the {len(files):,} pictures of {lists[0]}; "
            f"it labels {len(files.keys() & classes.keys()):,} of them and {len(classes):,} in all"
        )
    ids = sorted(files, key=lambda picture: number(lists[0], picture))
    labels = np.array([classes[picture] for picture in ids], np.int64) - 1
    names = {classes[picture] - 1: files[picture].partition("/")[0] for picture in ids}
    splits = split_by_class_id("cub200", labels, expected)
    catalogue = Catalogue(
        spec=f"cub200:{path}",
        paths=tuple(str(root / "images" / files[picture]) for picture in ids),
        labels=labels,
        class_names=tuple(names.get(label, str(label + 1)) for label in range(max(names, default=-1) + 1)),
        splits=splits,
    )
    return check("cub200", catalogue, expected, root)
