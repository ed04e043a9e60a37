"""Where a data set lies unless its SPEC says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "RLL_DATASETS"


def place(name: str) -> Path:
    """`$RLL_DATASETS/NAME`, and `~/.rll_tf/datasets/NAME` where the variable is unset or empty."""
    root = os.environ.get(VARIABLE) or Path("~", ".rll_tf", "datasets")
    return Path(root).expanduser() / name
