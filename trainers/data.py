"""The data set that a command names."""

from __future__ import annotations

import numpy as np

from rll_tf.data import DATASETS, Catalogue, open_dataset
from trainers.suggestions import suggesting

# How a data set with such splits is evaluated, and what the result calls it.
QUERY_AGAINST_GALLERY = "query against gallery"


def open_data(spec: str) -> Catalogue:
    """As `rll_tf.data.open_dataset`; the error for a misspelt name suggests the nearest."""
    with suggesting(DATASETS, spec.partition(":")[0]):
        return open_dataset(spec)


def select_split(catalogue: Catalogue, split: str | None) -> Catalogue:
    """As `Catalogue.select`; the error for a misspelt name suggests the nearest."""
    with suggesting([*catalogue.splits, "all"], split):
        return catalogue.select(split)


def query_and_gallery(catalogue: Catalogue) -> tuple[Catalogue, np.ndarray]:
    """The pictures of both splits, queries first, and which are the gallery's: [n] bool."""
    query, gallery = catalogue.splits["query"], catalogue.splits["gallery"]
    in_gallery = np.repeat([False, True], [len(query), len(gallery)])
    return catalogue.take(np.concatenate([query, gallery])), in_gallery
