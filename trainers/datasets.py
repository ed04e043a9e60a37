"""`rll datasets`: what there is, where it belongs, whether it is there."""

from __future__ import annotations

from rll_tf.data import DATASETS


def list_datasets() -> None:
    """Print a table of the data sets."""
    rows = [("SPEC", "what", "where", "there")]
    rows += [
        (
            f"{name}:PATH" if entry.has_path else name,
            entry.what,
            entry.where,
            "-" if entry.has_path else "yes",
        )
        for name, entry in DATASETS.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
