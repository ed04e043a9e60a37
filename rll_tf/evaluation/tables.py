"""Metrics as a table that people read."""

from __future__ import annotations

from collections.abc import Mapping

SHORT_NAMES = {"map@r": "MAP@R", "r_precision": "R-Prec", "nmi": "NMI", "pairwise_f1": "F1"}


def metric_columns(rows: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Metric name -> heading, for every metric that any row has, in the order of their first appearance."""
    metrics = dict.fromkeys(metric for row in rows.values() for metric in row)
    return {metric: SHORT_NAMES.get(metric, metric.replace("recall@", "R@")) for metric in metrics}


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal, without the sign; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"


def format_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """An aligned plain-text table in percent, one line per row.

    Args:
        rows: the row's name -> what `retrieval_metrics` returned; a metric that a row lacks is a dash.

    Returns:
        Lines without a final newline: headings, a rule, the rows.
    """
    columns = metric_columns(rows)
    table = [["", *columns.values()]]
    table += [[name, *(percent(row.get(metric)) for metric in columns)] for name, row in rows.items()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in table]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])
