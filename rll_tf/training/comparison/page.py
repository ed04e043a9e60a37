"""The page of a comparison: one file, without a network, in light and dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rll_tf.evaluation import CONCAT
from rll_tf.evaluation.charts import CHART, FLOOR, LEFT, WIDTH, Scale, path
from rll_tf.evaluation.report import Album, templates, write_page
from rll_tf.evaluation.selection import RankedLists
from rll_tf.evaluation.tables import percent
from rll_tf.training.comparison.results import (
    format_parameters,
    headings,
    interval_in_words,
    notes,
    paper_cell,
    paper_heading,
    paper_sources,
    paper_table,
    protocol_in_words,
    standing,
    untrained_rows,
)
from rll_tf.training.settings import as_text

Rows = Sequence[Mapping[str, Any]]


def write_comparison(
    folder: Path,
    results: Mapping[str, Any],
    *,
    title: str,
    lists: Mapping[str, RankedLists] | None = None,
    image: Callable[[int], Any] | None = None,
    class_name: Callable[[int], str] | None = None,
) -> Path:
    """Write `folder/index.html` from `results.json`.

    Args:
        folder: where.
        results: what `results.json` holds.
        title: the heading.
        lists: row's name -> ranked lists, of the same queries in each; None: the page shows no pictures.
        image: index -> the test picture.
        class_name: index -> the name of its class.

    Returns:
        The page's path.
    """
    rows = results["rows"]
    columns = headings(results)
    ranges = results["protocol"]["ranges"]
    template = templates(Path(__file__).parent).get_template("comparison.html.j2")
    page = template.render(
        title=title,
        results=results,
        rows=rows,
        columns=columns,
        table=_table(rows, columns),
        paper=paper_heading(rows),
        paper_table=paper_table(rows),
        paper_sources=paper_sources(rows),
        untrained=untrained_rows(rows),
        concat=CONCAT,
        interval=interval_in_words(results["seeds"]),
        notes=notes(results),
        percent=percent,
        parameters=format_parameters,
        as_text=as_text,
        protocol=protocol_in_words(results),
        ranges=[(loss, each) for loss, searched in ranges.items() for each in searched],
        curves=_curves(rows),
        costs=_costs(rows),
        sensitivity=_sensitivity(rows, ranges),
        lists=_lists(lists, image, class_name) if lists and image and class_name else [],
        chart=CHART,
    )
    return write_page(folder, page)


def _table(rows: Rows, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """The cells of the main table."""

    def cell(value: Mapping[str, Any] | None, standing: str = "") -> dict[str, str]:
        if value is None:
            return {"mean": "-", "half": "", "standing": ""}
        half = "" if value["ci95"] is None else percent(value["ci95"])
        return {"mean": percent(value["mean"]), "half": half, "standing": standing}

    standings = {metric: standing(rows, metric) for metric in columns}
    marks = {"first": "best", "within": "within", "": ""}
    return [
        {
            "name": row["name"],
            "cells": [
                *(
                    cell(row["levels"][CONCAT][metric], marks[of_rows[number]])
                    for metric, of_rows in standings.items()
                ),
                cell(row["validation"]),
            ],
            "paper": paper_cell(row),
        }
        for number, row in enumerate(rows)
    ]


def _vertical(values: Sequence[float], low: float = 0.0) -> Scale:
    """A common scale of MAP@R in percent, from `low`."""
    return Scale(100 * low, 100 * max(values, default=1.0) or 1.0, FLOOR, 10)


def _curves(rows: Rows) -> dict[str, Any]:
    """A small chart of each row: validation of its seeds over the share of its steps, the others' faintly."""
    values = [value for row in rows for curve in row["curves"] for _, value in curve]
    vertical = _vertical(values)
    horizontal = Scale(0, 1, LEFT, WIDTH - 8)

    paths = {
        row["name"]: [
            path([(step / row["steps"], 100 * value) for step, value in curve], horizontal, vertical)
            for curve in row["curves"]
        ]
        for row in rows
    }
    return {
        "ticks": vertical.ticks(4) if values else [],
        "charts": [
            {
                "name": row["name"],
                "steps": row["steps"],
                "paths": paths[row["name"]],
                "others": [each for name, others in paths.items() if name != row["name"] for each in others],
            }
            for row in rows
        ],
    }


def _costs(rows: Rows) -> list[dict[str, Any]]:
    """What a step takes, each as a share of the largest."""
    seconds = [row["seconds_a_step"] or 0.0 for row in rows]
    memory = [row["peak_memory_mib"] or 0.0 for row in rows]
    return [
        {
            "name": row["name"],
            "pictures": row["batch"][0] * row["batch"][1],
            "steps": row["steps"],
            "seconds": second,
            "seconds_share": second / (max(seconds) or 1.0),
            "memory": size,
            "memory_share": size / (max(memory) or 1.0),
        }
        for row, second, size in zip(rows, seconds, memory, strict=True)
    ]


def _sensitivity(rows: Rows, ranges: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """For each searched row, a small chart of each parameter: the validation of every trial."""
    found = [trial["validation"] for row in rows for trial in row["search"]]
    vertical = _vertical(found, 0.9 * min(found, default=0.0))
    return [
        {
            "name": row["name"],
            "charts": [
                _scatter(row["search"], each, row["parameters"], vertical) for each in ranges[row["loss"]]
            ],
        }
        for row in rows
        if row["search"]
    ]


def _scatter(
    trials: Sequence[Mapping[str, Any]],
    each: Mapping[str, Any],
    chosen: Mapping[str, Any],
    vertical: Scale,
) -> dict[str, Any]:
    key, choices = each["key"], list(each["choices"])
    if choices:
        horizontal = Scale(-0.5, len(choices) - 0.5, LEFT, WIDTH - 8)
        ticks = [(horizontal(number), as_text(choice)) for number, choice in enumerate(choices)]
    else:
        horizontal = Scale(each["low"], each["high"], LEFT + 6, WIDTH - 14, each["scale"] == "log")
        ticks = horizontal.ticks(5)
    best = next(number for number, trial in enumerate(trials) if trial["parameters"] == chosen)
    return {
        "key": key,
        "x": ticks,
        "y": vertical.ticks(4),
        "points": [
            {
                "x": horizontal(choices.index(value) if choices else value),
                "y": vertical(100 * trial["validation"]),
                "best": number == best,
                "text": f"trial {number + 1}: {as_text(value)}, MAP@R {100 * trial['validation']:.1f}",
            }
            for number, trial in enumerate(trials)
            for value in (trial["parameters"][key],)
        ],
    }


def _lists(
    lists: Mapping[str, RankedLists], image: Callable[[int], Any], class_name: Callable[[int], str]
) -> list[dict[str, Any]]:
    """For each query its picture, and the nearest others by each row."""
    album = Album(image, class_name)
    by_row = {name: album.rows(each) for name, each in lists.items()}
    queries = next(iter(lists.values())).queries
    return [
        {
            "query": album.picture(int(query)) | {"note": "query"},
            "rows": [(name, each[number]["neighbours"]) for name, each in by_row.items()],
        }
        for number, query in enumerate(queries)
    ]
