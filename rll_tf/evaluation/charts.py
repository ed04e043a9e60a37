"""Small charts as SVG, for pages that need no script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

# A small chart, in the units of its drawing: its size, where its axes are.
WIDTH, HEIGHT, LEFT, FLOOR = 260, 150, 34, 126
CHART = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "floor": FLOOR}
POINTS = 120  # at most, of a line; more are averaged


class Scale:
    """From values to positions on an axis."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False) -> None:
        self.log = log
        self.low, self.high = low, high if high > low else low + 1
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        """The position, rounded."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """Positions and texts of about that many round values."""
        locator = LogLocator(numticks=count) if self.log else MaxNLocator(count)
        values = [v for v in locator.tick_values(self.low, self.high) if self.low <= v <= self.high]
        return [(self(value), f"{value:g}") for value in values]


def path(points: Iterable[tuple[float, float]], horizontal: Scale, vertical: Scale) -> str:
    """A line through points (x, y)."""
    drawn = [f"{horizontal(x)},{vertical(y)}" for x, y in points]
    return "M" + "L".join(drawn) if drawn else ""


def line_chart(name: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """A chart, as the template's `lines` takes it, from line's name -> points (step, value)."""
    thinned = {line: _thin(points) for line, points in lines.items() if len(points)}
    points = np.array([point for each in thinned.values() for point in each])
    horizontal = Scale(0, points[:, 0].max(), LEFT, WIDTH - 14)
    vertical = Scale(min(0.0, points[:, 1].min()), points[:, 1].max(), FLOOR, 10)
    return {
        "name": name,
        "x": horizontal.ticks(4),
        "y": vertical.ticks(4),
        "lines": [(line, path(each, horizontal, vertical)) for line, each in thinned.items()],
    }


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points, or means of as many neighbours at a time that few are left."""
    parts = np.array_split(np.array(points, float), min(POINTS, len(points)))
    return [(float(x), float(y)) for x, y in (part.mean(axis=0) for part in parts)]
