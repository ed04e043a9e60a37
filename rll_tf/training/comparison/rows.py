"""The rows of a comparison: a loss, the levels it trains, and what is fixed for it."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rll_tf.losses import LOSSES
from rll_tf.models.backbone import LEVELS


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        name: in the table.
        loss: a name in `LOSSES`.
        levels: the embeddings that are trained, each with a loss of its own.
        fixed: settings that are given, by name or `loss.KEY`; None: they are searched.
    """

    name: str
    loss: str
    levels: tuple[str, ...]
    fixed: Mapping[str, Any] | None = None

    @property
    def folder(self) -> str:
        """The name of its folder of runs."""
        if self.fixed is None:
            return "-".join([self.loss, *self.levels])
        return "_".join(re.findall(r"[\w.-]+", self.name))


def parse_rows(text: str | None, levels: str) -> tuple[Row, ...]:
    """The rows that `--losses` names: `NAME` or `NAME:LEVELS`, separated by commas.

    Args:
        text: such as `"ranked_list:low,mid,high,proxy_nca"`; None: every loss, and Ranked List Loss on all
            levels.
        levels: of the losses given without, separated by commas.

    Raises:
        ValueError: an unknown loss or level, or a row that is named twice.
    """
    default = _levels(levels.split(","))
    if text is None:
        rows = [Row(loss, loss, default) for loss in LOSSES]
        if default != LEVELS:
            rows.insert(1, Row(f"ranked_list:{','.join(LEVELS)}", "ranked_list", LEVELS))
        return tuple(rows)
    names: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if part in LEVELS and names and ":" in names[-1]:
            names[-1] += f",{part}"
        else:
            names.append(part)
    rows = [_row(name, default) for name in names]
    repeated = [row.name for number, row in enumerate(rows) if row.folder in _folders(rows[:number])]
    if repeated:
        raise ValueError(f"every loss must be named once; got {repeated[0]} twice")
    return tuple(rows)


def _folders(rows: Sequence[Row]) -> list[str]:
    return [row.folder for row in rows]


def _row(name: str, default: tuple[str, ...]) -> Row:
    loss, colon, levels = name.partition(":")
    if loss not in LOSSES:
        nearest = difflib.get_close_matches(loss.lower(), LOSSES)
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known are: {', '.join(LOSSES)}"
        raise ValueError(f"unknown loss {loss!r}; {hint}")
    return Row(name, loss, _levels(levels.split(",")) if colon else default)


def _levels(names: Sequence[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in names)
    if not names or len(set(names)) < len(names) or not set(names) <= set(LEVELS):
        raise ValueError(
            f"levels must be some of {', '.join(LEVELS)}, each once; got {','.join(names) or 'none'}"
        )
    return tuple(level for level in LEVELS if level in names)
