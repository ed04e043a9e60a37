"""What a comparison found: means and intervals, as JSON and as a table in Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from rll_tf.data import counted
from rll_tf.evaluation import CONCAT
from rll_tf.evaluation.tables import SHORT_NAMES, percent
from rll_tf.training.comparison.rows import Row
from rll_tf.training.comparison.search import SPREAD_TRIALS
from rll_tf.training.settings import as_text

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
                "validation": _validation([seed["validation"] for seed in seeds]),
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


def _validation(values: Sequence[float | None]) -> dict[str, Any] | None:
    """As `interval`; None where nothing is validated. A run that diverged at once counts 0."""
    if all(value is None for value in values):
        return None
    return interval([value or 0.0 for value in values])


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


def headings(results: Mapping[str, Any]) -> dict[str, str]:
    """Metric -> heading, of the metrics in the table: those named by `results`, or else `METRICS`."""
    wanted = results.get("metrics", METRICS)
    known = [metric for metric in wanted if all(metric in row["levels"][CONCAT] for row in results["rows"])]
    return {metric: SHORT_NAMES.get(metric, metric.replace("recall@", "R@")) for metric in known}


def in_percent(value: Mapping[str, Any] | None) -> str:
    """A mean and its interval in percent; a dash where there is none."""
    if value is None:
        return "-"
    return f"{100 * value['mean']:.1f}" + (
        f" ± {100 * value['ci95']:.1f}" if value["ci95"] is not None else ""
    )


def format_parameters(parameters: Mapping[str, Any]) -> str:
    """As `--set` takes them."""
    return ", ".join(f"{key}={as_text(value)}" for key, value in parameters.items())


def paper_heading(rows: Sequence[Mapping[str, Any]]) -> str:
    """The heading of the column of the paper's own numbers; empty where no row has any."""
    data = dict.fromkeys(name for row in rows for name in row.get("paper") or ())
    return f"the paper's own R@1, {' / '.join(data)}" if data else ""


def paper_cell(row: Mapping[str, Any]) -> str:
    """The paper's own Recall@1 for a row: of another network, other data or another number of steps."""
    return " / ".join(f"{values['R@1']}" for values in (row.get("paper") or {}).values())


def paper_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """All of the paper's own numbers for these rows: headings, then cells."""
    known = [row for row in rows if row.get("paper")]
    if not known:
        return []
    data = known[0]["paper"]
    metrics = {name: list(values) for name, values in known[-1]["paper"].items()}
    table = [["", *(f"{name} {metric}" for name in data for metric in metrics[name])]]
    for row in known:
        cells = [str(row["paper"][name].get(metric, "-")) for name in data for metric in metrics[name]]
        table.append([row["name"], *cells])
    return table


def paper_sources(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whose the paper's numbers are, one line a source."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.get("paper"):
            names.setdefault(row["paper_source"], []).append(row["name"])
    return [f"{', '.join(of)}: {source}." for source, of in names.items()]


def notes(results: Mapping[str, Any]) -> list[str]:
    """What a reader must know about rows, one line each."""
    lines = []
    for row in results["rows"]:
        if row["saw_test_classes"]:
            count = len(row["saw_test_classes"])
            lines.append(f"{row['name']}: trained on {count} of the test classes: excluded.")
        if not beats_untrained(row):
            lines.append(f"{row['name']}: not shown to be better than the untrained network.")
        if row["diverged"]:
            lines.append(
                f"{row['name']}: {counted(row['diverged'], 'seed')} diverged; "
                "the best earlier checkpoint counts."
            )
    if results.get("shared_pictures"):
        lines.append(f"{counted(results['shared_pictures'], 'test picture')} also among training pictures.")
    return [*lines, *results.get("notes", ())]


def protocol_in_words(results: Mapping[str, Any]) -> list[str]:
    """How the numbers came about, one sentence or two each."""
    protocol = results["protocol"]
    settings = protocol["settings"]
    batch = f"{settings['classes_per_batch']} × {settings['images_per_class']}"
    weights = f"weights {settings['weights']}" if settings["weights"] else "random weights"
    lines = [
        f"All rows start from the same {settings['backbone']} ({weights}) at {settings['input_px']} px and "
        f"see {_pictures_seen(results['rows'])}: {settings['steps']} steps of {batch} (classes × pictures of "
        "each) where the settings don't say otherwise.",
    ]
    if settings["test_share"]:
        lines.append(
            f"{settings['test_share']:.0%} of the classes, drawn at random, are the test classes; no picture "
            "of theirs was opened before the last training run had ended."
        )
    else:
        lines.append("No test picture was opened before the last training run had ended.")
    validated = any(row["validation"] for row in results["rows"])
    lines.append(
        _validation_in_words(settings)
        if validated
        else "No classes are held out to validate on: the last checkpoint counts."
    )
    checkpoint = "best checkpoint by validation" if validated else "last checkpoint"
    if results["trials"]:
        proposed = (
            "; then Optuna's tree-structured Parzen estimator proposes"
            if results["trials"] > 1 + SPREAD_TRIALS
            else ""
        )
        lines += [
            f"Each loss has {counted(results['trials'], 'trial')}. The first is its default; up to "
            f"{SPREAD_TRIALS} are spread over the ranges, a Latin hypercube{proposed}. The trial with the "
            "highest MAP@R on the validation classes is chosen.",
            f"The chosen setting is trained with {counted(results['seeds'], 'seed')}, of weights, batches, "
            f"augmentation and held-out classes. Each run is tested once, at its {checkpoint}.",
        ]
    else:
        lines.append(
            f"Nothing is searched. Each row is trained with {counted(results['seeds'], 'seed')} and tested "
            f"once, at its {checkpoint}."
        )
    return lines


def _pictures_seen(rows: Sequence[Mapping[str, Any]]) -> str:
    """In words; batches of other sizes don't divide to the last picture."""
    seen = [row["steps"] * math.prod(row["batch"]) for row in rows]
    if max(seen) <= 1.05 * min(seen):
        return "the same number of pictures"
    return f"{min(seen):,} to {max(seen):,} pictures"


def _validation_in_words(settings: Mapping[str, Any]) -> str:
    folds = settings["validation_folds"]
    if folds:
        return (
            f"The training classes are few, so a trial is the mean of {folds} runs, each validated on "
            f"another of {folds} parts of them; each final run validates on one of {folds} parts that its "
            "seed draws."
        )
    return (
        "Checkpoints and parameters are chosen on validation classes: the data set's own, or else "
        f"{settings['validation_share']:.0%} of the training classes. The final runs hold them out too, so "
        "that each has a checkpoint chosen by the same rule as in the search."
    )


def format_results(results: Mapping[str, Any]) -> str:
    """The results as Markdown: the table, what must be known, the parameters."""
    rows = results["rows"]
    columns = headings(results)
    standings = {metric: standing(rows, metric) for metric in columns}
    of_paper = [heading] if (heading := paper_heading(rows)) else []
    marks = {"first": "**", "within": "*", "": ""}
    names = [*columns.values(), "validation MAP@R", "s a step", *of_paper]
    lines = [f"| loss | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for number, row in enumerate(rows):
        cells = [row["name"]]
        for metric in columns:
            mark = marks[standings[metric][number]]
            cells.append(f"{mark}{in_percent(row['levels'][CONCAT][metric])}{mark}")
        seconds = row["seconds_a_step"]
        cells += [in_percent(row["validation"]), "-" if seconds is None else f"{seconds:.2f}"]
        cells += [paper_cell(row) for _ in of_paper]
        lines.append(f"| {' | '.join(cells)} |")
    for name, levels in untrained_rows(rows).items():
        cells = [percent(levels[CONCAT].get(metric)) for metric in columns]
        lines.append(f"| *untrained, {name}* | {' | '.join([*cells, '', '', *['' for _ in of_paper]])} |")
    lines += [
        "",
        f"Test: {results['test']}. In percent{interval_in_words(results['seeds'])}. Bold: the highest "
        "mean; italic: means within its interval.",
        "",
        *(f"* {line}" for line in notes(results)),
        "",
        *_paper_lines(rows),
        "| loss | parameters | batch | steps | trials |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        classes, images = row["batch"]
        cells = [row["name"], format_parameters(row["parameters"]), f"{classes} × {images}"]
        lines.append(f"| {' | '.join(cells)} | {row['steps']} | {row['trials']} |")
    return "\n".join(lines) + "\n"


def interval_in_words(seeds: int) -> str:
    """What the numbers are: a mean and its interval, or those of a single seed."""
    return f": mean ± half of the 95% t-interval over {seeds} seeds" if seeds > 1 else ", of one seed"


def _paper_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    table = [f"| {' | '.join(cells)} |" for cells in paper_table(rows)]
    if not table:
        return []
    rule = "|---" * (table[0].count("|") - 1) + "|"
    return [
        "The paper's own numbers:",
        "",
        table[0],
        rule,
        *table[1:],
        "",
        *(f"* {line}" for line in paper_sources(rows)),
        "",
    ]


def untrained_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The untrained networks of the rows: their levels, a size that isn't the first row's -> metrics."""
    networks = {}
    for row in rows:
        name = ",".join(level for level in row["untrained"] if level != CONCAT)
        if row["embedding_dim"] != rows[0]["embedding_dim"]:
            name += f", {row['embedding_dim']} dimensions"
        networks[name] = row["untrained"]
    return networks
