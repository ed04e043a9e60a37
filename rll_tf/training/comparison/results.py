"""What a comparison found: means and intervals, as JSON and as a table in Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from rll_tf.evaluation.tables import SHORT_NAMES
from rll_tf.training.comparison.ranges import as_text
from rll_tf.training.comparison.rows import Row
from rll_tf.training.embed import CONCAT

Records = Sequence[Mapping[str, Any]]
METRICS = ("recall@1", "recall@2", "recall@4", "recall@8", "map@r", "nmi")


def summarise(records: Records) -> list[dict[str, Any]]:
    """The rows of `results.json`, from what `compare` returned."""
    rows = []
    for record in records:
        row: Row = record["row"]
        seeds, tests = record["seeds"], record["tests"]
        rows.append(
            {
                "name": row.name,
                "loss": row.loss,
                "parameters": record["parameters"],
                "trials": len(record["trials"]),
                "levels": {
                    level: {metric: interval([test[level][metric] for test in tests]) for metric in metrics}
                    for level, metrics in tests[0].items()
                },
                "validation": interval([seed["validation"] for seed in seeds]),
                "seconds_a_step": _median(seeds, "seconds_a_step"),
                "peak_memory_mib": _median(seeds, "peak_memory_mib"),
                "batch": [record["settings"].classes_per_batch, record["settings"].images_per_class],
                "steps": record["settings"].steps,
                "embedding_dim": record["settings"].embedding_dim,
                "best_steps": [seed["best_step"] for seed in seeds],
                "diverged": sum(seed["diverged"] for seed in seeds),
                "saw_test_classes": record["saw_test_classes"],
                "untrained": record["untrained"],
                "curves": [seed["curve"] for seed in seeds],
                "search": [
                    {
                        "parameters": trial["parameters"],
                        "validation": trial["validation"],
                        "diverged": any(run["diverged"] for run in trial["runs"]),
                    }
                    for trial in record["trials"]
                ],
            }
        )
    return rows


def interval(values: Sequence[float]) -> dict[str, Any]:
    """The mean of independent values, half the width of its 95% t-interval (None of one), the values."""
    n = len(values)
    half = None
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return {"mean": statistics.fmean(values), "ci95": half, "values": list(values)}


def _median(seeds: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [seed[name] for seed in seeds if seed[name] is not None]
    return statistics.median(values) if values else None


def standing(rows: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """Of each row: `"first"`, `"within"` the interval of the first's mean, or `""`.

    A row that saw test classes has no standing.
    """
    honest = [number for number, row in enumerate(rows) if not row["saw_test_classes"]]
    if not honest:
        return [""] * len(rows)
    of_test = [row["levels"][CONCAT][metric] for row in rows]
    first = max(honest, key=lambda number: of_test[number]["mean"])
    bound = of_test[first]["mean"] - (of_test[first]["ci95"] or 0.0)
    standings = []
    for number in range(len(rows)):
        within = number in honest and of_test[number]["mean"] >= bound
        standings.append("first" if number == first else "within" if within else "")
    return standings


def beats_untrained(row: Mapping[str, Any]) -> bool:
    """Whether the whole interval of MAP@R lies above the untrained network's."""
    test = row["levels"][CONCAT]["map@r"]
    return test["mean"] - (test["ci95"] or 0.0) > row["untrained"][CONCAT]["map@r"]


def headings(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Metric -> heading, of the metrics in the table."""
    known = [metric for metric in METRICS if all(metric in row["levels"][CONCAT] for row in rows)]
    return {metric: SHORT_NAMES.get(metric, metric.replace("recall@", "R@")) for metric in known}


def in_percent(value: Mapping[str, Any]) -> str:
    """A mean and its interval in percent."""
    return f"{100 * value['mean']:.1f}" + (
        f" ± {100 * value['ci95']:.1f}" if value["ci95"] is not None else ""
    )


def format_parameters(parameters: Mapping[str, Any]) -> str:
    """As `--set` takes them."""
    return ", ".join(f"{key}={as_text(value)}" for key, value in parameters.items())


def remarks(row: Mapping[str, Any]) -> list[str]:
    """What a reader must know about a row."""
    notes = []
    if row["saw_test_classes"]:
        notes.append(f"trained on {len(row['saw_test_classes'])} of the test classes: it doesn't compete")
    if not beats_untrained(row):
        notes.append("not better than the untrained network")
    if row["diverged"]:
        notes.append(f"{row['diverged']} seeds diverged: their best checkpoint before counts")
    return notes


def format_results(results: Mapping[str, Any]) -> str:
    """The results as Markdown: the table, remarks, the parameters that the search chose."""
    rows = results["rows"]
    columns = headings(rows)
    standings = {metric: standing(rows, metric) for metric in columns}
    marks = {"first": "**", "within": "*", "": ""}
    lines = [
        f"| loss | {' | '.join(columns.values())} | validation MAP@R | s a step |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for number, row in enumerate(rows):
        cells = []
        for metric in columns:
            mark = marks[standings[metric][number]]
            cells.append(f"{mark}{in_percent(row['levels'][CONCAT][metric])}{mark}")
        seconds = row["seconds_a_step"]
        cells += [in_percent(row["validation"]), "-" if seconds is None else f"{seconds:.2f}"]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    for name, levels in _untrained(rows).items():
        values = [f"{100 * levels[CONCAT][metric]:.1f}" for metric in columns]
        lines.append(f"| *untrained, {name}* | {' | '.join(values)} | | |")
    lines += [
        "",
        f"Test: {results['test']}. In percent: mean ± half of the 95% t-interval over {results['seeds']} "
        "seeds. Bold: the highest mean; italic: means within its interval.",
        "",
        *(f"* {row['name']}: {'; '.join(notes)}." for row in rows if (notes := remarks(row))),
        "",
        "| loss | parameters | batch | steps | trials |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        classes, images = row["batch"]
        parameters = format_parameters(row["parameters"])
        lines.append(
            f"| {row['name']} | {parameters} | {classes} × {images} | {row['steps']} | {row['trials']} |"
        )
    return "\n".join(lines) + "\n"


def _untrained(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The untrained networks of the rows: the levels' names -> their metrics, each once."""
    return {
        ",".join(level for level in row["untrained"] if level != CONCAT): row["untrained"]
        for row in reversed(rows)
    }
