"""In-shop Clothes Retrieval, of DeepFashion: photographs of 7,982 garments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rll_tf.data.catalogue import Catalogue
from rll_tf.data.layout import Counts, check, doubled, find_tree, number, rows

COUNTS = {
    "train": Counts(3_997, 25_882),
    "query": Counts(3_985, 14_218),
    "gallery": Counts(3_985, 12_612),
}

_LIST = "list_eval_partition.txt"


def inshop(path: str | os.PathLike[str], expected: Mapping[str, Counts] = COUNTS) -> Catalogue:
    """Catalogue the In-shop Clothes Retrieval Benchmark, in the layout of its later release.

    `path` holds `Eval/list_eval_partition.txt` (or the file itself) and the unpacked `img.zip` as `img/` or
    `Img/img/`. The list is the count of its pictures, a heading, and then lines

        img/WOMEN/Dresses/id_00000002/02_1_front.jpg id_00000002 train

    Returns:
        The pictures in the list's order, classes in the order of their names. "train" shares no class with
        the others; "query" and "gallery" share theirs by design, each query being sought in the gallery.
        "test" is both together.

    Source: Liu et al., "DeepFashion" (2016); the paper, section 4.1.
    """
    root = Path(path).expanduser()
    file = find_tree("inshop", root, ["Eval", "Anno"], _LIST) / _LIST
    announced = number(file, next(rows(file, 1), [""])[0])
    table = list(rows(file, 3, skip=2))
    if len(table) != announced:
        raise ValueError(
            f"inshop: expected {announced:,} pictures, as {file} announces; it lists {len(table):,}"
        )
    pictures, items, parts = np.array(table).T
    unknown = np.setdiff1d(parts, list(expected))
    if unknown.size:
        raise ValueError(f"{file} must assign pictures to {', '.join(expected)}; got {str(unknown[0])!r}")
    names, labels = np.unique(items, return_inverse=True)
    splits = {part: np.flatnonzero(parts == part) for part in expected}
    splits["test"] = np.flatnonzero(parts != "train")
    top = root / "Img" if (root / "Img" / "img").is_dir() else root / doubled(root, "img")
    catalogue = Catalogue(
        spec=f"inshop:{path}",
        paths=tuple(str(top / picture) for picture in pictures),
        labels=labels.astype(np.int64),
        class_names=tuple(str(name) for name in names),
        splits=splits,
    )
    shared = np.isin(labels[splits["test"]], labels[splits["train"]]).sum()
    if shared:
        raise ValueError(
            f"inshop: expected no class of train among query and gallery; found {shared:,} pictures"
        )
    return check("inshop", catalogue, expected, root)
