"""Where a data set is stored unless its SPEC has a path."""

from __future__ import annotations

import os
from pathlib import Path


def dataset_path(name: str) -> Path:
    """`$RLL_DATASETS/NAME`, and `~/.rll_tf/datasets/NAME` where the variable is unset or empty."""
    root = os.environ.get("RLL_DATASETS") or Path("~", ".rll_tf", "datasets")
    return Path(root).expanduser() / name
