"""`rll runs`: runs side by side."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from rll_tf.data import printable
from rll_tf.evaluation.tables import percent
from rll_tf.training import CONCAT, Run
from rll_tf.training.callbacks import best_epoch
from rll_tf.training.files import read_lines
from rll_tf.training.settings import as_text
from trainers.console import print_table, table_width


def list_runs(folder: Path) -> None:
    """Print a table of the runs in a folder, however deep: how far and how good each is, and what differs.

    A row is a run, or a column where that is narrower and rows don't fit the terminal.

    Raises:
        FileNotFoundError: there is no run.
    """
    runs: dict[Run, dict[str, str]] = {}
    damaged = []
    for file in sorted(folder.rglob("config.json")):
        run = Run(file.parent)
        try:
            runs[run] = _described(run)
        except ValueError as error:
            damaged.append(str(error))
    if not runs:
        raise FileNotFoundError("; ".join(damaged) or f"{folder} holds no runs")
    names = dict.fromkeys(name for described in runs.values() for name in described)
    differing = [name for name in names if len({described.get(name) for described in runs.values()}) > 1]
    table = [["RUN", "step", "best", "MAP@R", "R@1", *differing]]
    for run, described in runs.items():
        name = printable(str(run.folder.relative_to(folder)))
        table.append([name, *_reached(run), *(described.get(key, "-") for key in differing)])
    turned = [list(column) for column in zip(*table, strict=True)]
    fits = table_width(table) <= max(shutil.get_terminal_size().columns, table_width(turned))
    print_table(table if fits else turned)
    common = [
        f"{name} {next(iter(runs.values()))[name]}" for name in ("recipe", "data") if name not in differing
    ]
    print(f"{len(runs)} runs: " + "; ".join([*common, f"they differ in {', '.join(differing) or 'nothing'}"]))
    if len({tuple(run.config["classes"].get("validation", ())) for run in runs}) > 1:
        print("not all are validated on the same classes: their MAP@R and R@1 are not comparable")
    for line in damaged:
        print(line)


def _described(run: Run) -> dict[str, str]:
    """What decides a run's numbers, as text by name."""
    config, settings = run.config, dataclasses.asdict(run.settings)
    parameters = settings.pop("loss_parameters")
    commit = config.get("commit") or "-"
    described = {
        "recipe": config.get("recipe"),
        "data": printable(config["data"]),
        "pictures": config["fingerprint"],
        **settings,
        **{f"loss.{name}": value for name, value in parameters.items()},
        "commit": commit[:8] + commit[40:],  # -dirty stays
        **config.get("versions", {}),
    }
    return {name: as_text(value) for name, value in described.items()}


def _reached(run: Run) -> tuple[str, str, str, str]:
    """The step reached (of how many, while unfinished), the best step and its validation in percent."""
    steps, best = read_lines(run.steps_file), best_epoch(run.epochs())
    done = str(steps[-1]["step"] if steps else 0)
    if not run.metrics_file.is_file():
        done += f"/{run.settings.steps}"
    metrics = best.get("validation", {}).get(CONCAT, {}) if best else {}
    return (
        done,
        str(best["step"]) if best else "-",
        percent(metrics.get("map@r")),
        percent(metrics.get("recall@1")),
    )
