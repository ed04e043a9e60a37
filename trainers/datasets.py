"""`rll datasets`: what there is, where it belongs, whether it is there."""

from __future__ import annotations

from rll_tf.data import DATASETS


def list_datasets() -> None:
    """Print a table of the data sets."""
    rows = [("SPEC", "what", "where", "there")]
    for name, entry in DATASETS.items():
        spec, there = (f"{name}:PATH", "-") if entry.has_path else (name, "yes")
        rows.append((spec, entry.what, entry.where, there))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
