"""The page of `rll evaluate --report`: ranked lists, and how the runs were trained."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rll_tf.data import Catalogue, printable
from rll_tf.evaluation import concatenate_levels, write_report
from rll_tf.progress import waiting
from rll_tf.training import CONCAT, Run
from rll_tf.training.callbacks import best_epoch
from rll_tf.training.files import read_lines
from trainers.data import QUERY_AGAINST_GALLERY


def write_page(
    folder: Path,
    runs: Sequence[Run],
    pictures: Catalogue,
    embeddings: Mapping[str, np.ndarray],
    result: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, float]],
) -> Path:
    """Write the page and return its path.

    Args:
        folder: where it is written.
        runs: those that were evaluated; the ranked lists are the first's.
        pictures: n pictures, each of which is a query among all.
        embeddings: level -> [n, d], the first run's.
        result: what `--json` writes.
        rows: the table of metrics.
    """
    protocol = "Every picture is a query against all the others."
    if result["split"] == QUERY_AGAINST_GALLERY:
        protocol = "Every picture of the split query is a query against those of the split gallery."
    with waiting("writing the report"):
        return write_report(
            folder,
            metrics=rows,
            embeddings=concatenate_levels(embeddings),
            labels=pictures.labels,
            image=lambda index: Image.open(io.BytesIO(pictures.encoded(index))),
            data=printable(pictures.spec),
            split=result["split"],
            level=f"{runs[0].folder}, {CONCAT}" if len(runs) > 1 else CONCAT,
            class_names=pictures.class_names,
            facts=_facts(runs, result),
            protocol=protocol,
            curves=_curves(runs),
        )


def _facts(runs: Sequence[Run], result: Mapping[str, Any]) -> dict[str, str]:
    """What the page says about the first run, and which others it is compared with."""
    run = runs[0]
    config, best = run.config, best_epoch(run.epochs())
    commit, dirty, _ = str(config.get("commit") or "unknown").partition("-dirty")
    facts = {
        "run": printable(str(run.folder)),
        "recipe": config.get("recipe") or "none",
        "checkpoint": f"step {best['step']:,} of {run.settings.steps:,}" if best else "the last",
        "trained": _date(run.best_file.stat().st_mtime),
        "commit": commit[:12] + dirty,
        "evaluated": _date(None),
    }
    if len(runs) > 1:
        facts["beside it"] = ", ".join(printable(str(each.folder)) for each in runs[1:])
    if result["split"] == QUERY_AGAINST_GALLERY:
        facts["queries"] = f"{result['queries']:,}"
    return facts


def _date(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _curves(runs: Sequence[Run]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Losses, mined shares and validation metrics over the steps: of one run by level, of several by run."""
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for run in runs:
        for chart, level, step, value in _points(run):
            if len(runs) == 1 or level in ("sum", CONCAT):
                line = level if len(runs) == 1 else printable(str(run.folder))
                charts.setdefault(chart, {}).setdefault(line, []).append((step, value))
    order = [*runs[0].settings.levels, "sum", CONCAT]  # so that a level has one colour
    return {
        chart: {
            name: lines[name]
            for name in sorted(lines, key=lambda name: order.index(name) if name in order else 0)
        }
        for chart, lines in charts.items()
    }


def _points(run: Run) -> Iterator[tuple[str, str, float, float]]:
    """Chart, level, step and value of everything that a run recorded."""
    for row in read_lines(run.steps_file):
        for key, value in row.items():
            level, _, kind = key.rpartition("_")
            if kind == "loss":
                yield "loss of a step", level or "sum", row["step"], value
            elif kind == "share":
                level, _, sign = level.rpartition("_")
                yield f"queries with a mined {sign}, percent", level or "all", row["step"], 100 * value
    for row in run.epochs():
        for level, metrics in row.get("validation", {}).items():
            yield "validation Recall@1, percent", level, row["step"], 100 * metrics["recall@1"]
            yield "validation MAP@R, percent", level, row["step"], 100 * metrics["map@r"]
