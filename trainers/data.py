"""The data set that a command names."""

from __future__ import annotations

from rll_tf.data import DATASETS, Catalogue, open_dataset
from trainers.suggestions import suggesting


def open_data(spec: str) -> Catalogue:
    """As `rll_tf.data.open_dataset`; the error for a misspelt name suggests the nearest."""
    with suggesting(DATASETS, spec.partition(":")[0]):
        return open_dataset(spec)


def select_split(catalogue: Catalogue, split: str | None) -> Catalogue:
    """As `Catalogue.select`; the error for a misspelt name suggests the nearest."""
    with suggesting([*catalogue.splits, "all"], split):
        return catalogue.select(split)
