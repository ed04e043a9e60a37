"""Stanford Online Products: photographs of 22,634 products from a shop's offers."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from rll_tf.data.catalogue import Catalogue
from rll_tf.data.layout import Counts, check, find_tree, number, rows

COUNTS = {"train": Counts(11_318, 59_551), "test": Counts(11_316, 60_502)}

_LISTS = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}


def sop(path: str | os.PathLike[str], expected: Mapping[str, Counts] = COUNTS) -> Catalogue:
    """Catalogue Stanford Online Products as its archive unpacks.

    `path` is `Stanford_Online_Products` or the directory above it, with `Ebay_train.txt` and
    `Ebay_test.txt`, each a heading and then lines

        <picture id> <class id, from 1> <super class id> <path, such as bicycle_final/111085122871_0.JPG>

    Returns:
        Train's pictures, then test's, in the lists' order; labels number the class ids of both lists in
        ascending order, from 0. A class is named by its super class and offer.

    Source: Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding" (2016); the paper,
    section 4.1.
    """
    root = find_tree("sop", path, ["Stanford_Online_Products"], _LISTS["train"])
    find_tree("sop", root, [], _LISTS["test"])
    ids: list[int] = []
    files: list[str] = []
    splits = {}
    for split, name in _LISTS.items():
        first = len(ids)
        for _, class_id, _, file in rows(root / name, 4, skip=1):
            ids.append(number(root / name, class_id))
            files.append(file)
        splits[split] = np.arange(first, len(ids))
    id_array = np.array(ids, np.int64)
    shared = np.intersect1d(*(id_array[indices] for indices in splits.values()))
    if len(shared):
        raise ValueError(f"sop: expected the lists to share no class; found {len(shared):,} in both")
    distinct, labels = np.unique(id_array, return_inverse=True)
    names = [""] * len(distinct)
    for label, file in zip(labels.tolist(), files, strict=True):
        names[label] = names[label] or file.rpartition("_")[0].replace("_final/", "/")
    catalogue = Catalogue(
        spec=f"sop:{path}",
        paths=tuple(str(root / file) for file in files),
        labels=labels.astype(np.int64),
        class_names=tuple(names),
        splits=splits,
    )
    return check("sop", catalogue, expected, root)
