"""`rll reproduce`: the rows of the paper's tables, trained here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.compare import SMALL, prepare, run
from trainers.recipes import find_recipe
from trainers.suggestions import suggesting

if TYPE_CHECKING:
    from rll_tf.training import Settings
    from rll_tf.training.comparison import Comparison, Row
    from trainers.paper_tables import Table, TableRow

# Settings that are not of the experiment: where files are, how often it is looked at.
INCIDENTAL = {
    "seed", "loss", "levels", "loss_parameters", "validate_every_steps", "checkpoint_minutes", "jit",
    "strategy", "replicas", "deterministic",
}  # fmt: skip
TIMED_PICTURES, TIMED_STEPS = 8, 3


@dataclasses.dataclass(frozen=True)
class Plan:
    """One table on one data set.

    Args:
        table: its name.
        settings: `"paper"` or `"2019"`.
        data: the SPEC.
        recipe: the recipe whose settings are the base.
        out: the folder.
    """

    table: str
    settings: str
    data: str
    recipe: str
    out: Path

    @property
    def content(self) -> Table:
        """What the paper says."""
        from trainers.paper_tables import TABLES

        return TABLES[self.table]

    @property
    def paper_name(self) -> str | None:
        """The paper's name of the data; None: it is another."""
        from trainers.paper_tables import BY_NAME

        name = BY_NAME.get(self.data.partition(":")[0])
        return name if any(name in row.printed for row in self.content.rows) else None


def reproduce(
    table: str,
    *,
    data: str | None = None,
    test: str | None = None,
    out: Path | None = None,
    recipe: str | None = None,
    settings: str = "paper",
    seeds: int = 1,
    steps: int | None = None,
    assignments: Sequence[str] = (),
    jobs: int = 1,
    pictures: bool = True,
    dry_run: bool = False,
) -> None:
    """Train the rows of a table with the paper's settings, on its data sets or on another.

    The arguments are those of `rll reproduce --help`.

    Raises:
        ValueError, OSError: the table, the data or the settings are not right.
    """
    from trainers.paper_tables import RANKED_LIST, TABLES

    with suggesting(TABLES, table):
        if table not in TABLES:
            raise ValueError(f"unknown table {table!r}; known are: {', '.join(TABLES)}")
    if steps is not None:
        assignments = (*assignments, f"steps={steps}")
    given = {assignment.partition("=")[0] for assignment in assignments}
    if wrong := sorted(given & RANKED_LIST[settings].keys()):
        raise ValueError(f"--set can't give {', '.join(wrong)}: the table's rows do")
    out = out or Path("runs", table if settings == "paper" else f"{table}_{settings}")
    plans = [
        Plan(table, settings, spec, recipe or _recipe(spec, settings), out if data else out / spec)
        for spec in ([data] if data else TABLES[table].data)
    ]
    for plan in plans:
        find_recipe(plan.recipe)
    if dry_run:
        for plan in plans:
            _describe_plan(plan, test, seeds, assignments)
        return
    from trainers.data import open_data

    present, lacking = [], []
    for plan in plans:
        try:
            open_data(plan.data)
            present.append(plan)
        except FileNotFoundError as error:
            lacking.append(error)
    if not present:
        raise lacking[0]
    for reason in lacking:
        print(f"left out: {reason}")
    for plan in present:
        run(
            partial(_rows, plan),
            data=plan.data, test=test, out=plan.out, recipe=plan.recipe, seeds=seeds, trials=0,
            assignments=assignments, jobs=jobs, pictures=pictures, validate=False,
            describe=partial(_describe, plan),
        )  # fmt: skip


def _recipe(spec: str, settings: str) -> str:
    """The recipe of that data: the paper's for its own sets."""
    from trainers.paper_tables import BY_NAME

    name = spec.partition(":")[0]
    if name in BY_NAME:
        return name if settings == "paper" else f"{name}_{settings}"
    return "convnet" if name in SMALL else "folder"


def _rows(plan: Plan, base: Settings, classes: int) -> tuple[Row, ...]:
    """The table's rows with all that is fixed for each."""
    from rll_tf.training.comparison import Row

    return tuple(
        Row(row.name, row.loss, row.levels, _fixed(row, plan, base, classes)) for row in plan.content.rows
    )


def _fixed(row: TableRow, plan: Plan, base: Settings, classes: int) -> dict[str, Any]:
    from rll_tf.training.comparison.ranges import ranges_of
    from rll_tf.training.comparison.search import propose
    from trainers.paper_tables import CLASSES, CUB, RANKED_LIST, RANKED_LIST_CUB_2019

    if row.loss != "ranked_list":
        return propose(ranges_of(row.loss, base), [])
    fixed = {**RANKED_LIST[plan.settings], **row.settings}
    if plan.settings == "2019" and plan.paper_name == CUB:
        fixed |= RANKED_LIST_CUB_2019
    if "classes_per_batch" in fixed:
        # In proportion to C = 60, so that a smaller batch, or fewer classes, keep the table's ratios.
        largest = max(each.settings["classes_per_batch"] for each in plan.content.rows)
        unit = min(base.classes_per_batch, classes * CLASSES // largest)
        fixed["classes_per_batch"] = max(2, round(unit * fixed["classes_per_batch"] / CLASSES))
    return fixed


def _differences(plan: Plan, protocol: dict[str, Any]) -> list[str]:
    """In what the experiment differs from the paper's, or from the first of its data sets on others."""
    from rll_tf.training import Settings
    from trainers.paper_tables import RANKED_LIST

    of_rows = RANKED_LIST[plan.settings]  # each row has its own
    data = plan.data.partition(":")[0] if plan.paper_name else plan.content.data[0]
    theirs = dataclasses.asdict(Settings(**find_recipe(_recipe(data, plan.settings)).settings))
    return [
        *["data"] * (plan.paper_name is None),
        *["test"] * (protocol["test"] is not None and plan.paper_name is not None),
        *(
            name
            for name, value in theirs.items()
            if name not in INCIDENTAL | of_rows.keys() and protocol["settings"][name] != value
        ),
    ]


def _describe(plan: Plan, results: dict[str, Any]) -> str:
    """Add the paper's numbers and what differs to the results; return the page's title."""
    printed = {row.name: row for row in plan.content.rows}
    for row in results["rows"]:
        of_paper = printed[row["name"]]
        shown = {
            name: values
            for name, values in of_paper.printed.items()
            if plan.paper_name is None or name == plan.paper_name
        }
        row["paper"] = shown
        row["paper_source"] = of_paper.source
    if plan.content.data == ("sop",):
        results["metrics"] = ["recall@1", "recall@10", "recall@100", "map@r", "nmi"]
    number = plan.table.removeprefix("table")
    of_settings = "the paper's settings" if plan.settings == "paper" else "the settings of the 2019 release"
    differences = _differences(plan, results["protocol"])
    results["paper_table"] = {"table": plan.table, "settings": plan.settings, "differences": differences}
    if differences:
        results["notes"].append(
            f"This is not the paper's experiment: other {', '.join(differences)}. "
            "Only the rows are the paper's."
        )
    results["notes"].append(
        "The paper's own numbers are of Inception-BN from ImageNet's weights on the data set named; none of "
        "them was measured here."
    )
    has_competitors = any(row.loss != "ranked_list" for row in plan.content.rows)
    if has_competitors:
        results["notes"].append(
            "The paper doesn't give its competitors' settings: here they have those of the first trial of "
            "rll compare, N-pair and Spectral Clust also another batch."
        )
    if not differences and not has_competitors:
        return f"Table {number} of the paper, run again with {of_settings}"
    return f"The rows of the paper's Table {number}, {plan.content.about}, on {plan.data}"


def _describe_plan(plan: Plan, test: str | None, seeds: int, assignments: Sequence[str]) -> None:
    """Print what is missing, the rows, how many runs there are and about how long they take."""
    from rll_tf.training import Settings
    from trainers.console import print_table

    recipe = find_recipe(plan.recipe)
    print(f"{plan.table}: {plan.content.about}, on {plan.data} with the settings of {plan.recipe}")
    missing = []
    comparison: Comparison | None = None
    try:
        _, _, comparison = prepare(
            partial(_rows, plan),
            plan.data, test, plan.recipe, seeds, 0, assignments, validate=False,
        )  # fmt: skip
        base, rows = comparison.base, comparison.rows
    except FileNotFoundError as error:
        missing.append(str(error))
        base = Settings(**recipe.settings).override(assignments)
        rows = _rows(plan, base, base.classes_per_batch * 2)
    if base.weights not in (None, "imagenet") and not Path(base.weights).is_file():
        missing.append(f"the file of weights {base.weights}")
    for line in missing or ["nothing"]:
        print(f"missing: {line}")
    of_paper = {row.name: row for row in plan.content.rows}
    from rll_tf.training.comparison.results import format_parameters

    print_table(
        [("ROW", "levels", "settings", "the paper's own"),
         *(
             (
                 row.name, ",".join(row.levels), f"{row.loss} {format_parameters(row.fixed or {})}",
                 _printed(of_paper[row.name], plan),
             )
             for row in rows
         )]
    )  # fmt: skip
    _print_settings(plan)
    runs = len(rows) * seeds
    pictures = base.steps * base.classes_per_batch * base.images_per_class
    hours = runs * pictures * _seconds_a_picture(base) / 3600
    print(
        f"{runs} runs of {base.steps} steps of {base.classes_per_batch} × {base.images_per_class}: about "
        f"{hours:,.1f} hours on this machine, by {TIMED_STEPS} steps of {TIMED_PICTURES} pictures"
    )


def _printed(row: TableRow, plan: Plan) -> str:
    """The paper's numbers, of all its data sets or of the one that is trained on."""
    return "; ".join(
        f"{name}: {', '.join(f'{metric} {value}' for metric, value in values.items())}"
        for name, values in row.printed.items()
        if plan.paper_name in (None, name)
    )


def _print_settings(plan: Plan) -> None:
    """The paper's settings and the 2019 release's, side by side, where they differ from the defaults."""
    from rll_tf.training.settings import as_text
    from trainers.console import print_table
    from trainers.paper_tables import BY_NAME
    from trainers.recipes import RECIPES

    names = [name for name in plan.content.data if plan.paper_name in (None, BY_NAME[name])]
    for name in names:
        paper, release = RECIPES[name].settings, RECIPES[f"{name}_2019"].settings
        keys = dict.fromkeys([*paper, *release])
        rows = [
            (key, *(as_text(of.get(key, "paper" if key == "variant" else "-")) for of in (paper, release)))
            for key in keys
        ]
        print_table([(f"SETTINGS ({name})", "paper", "2019 release"), *rows])


def _seconds_a_picture(settings: Settings) -> float:
    """What a training step takes on this machine for each picture; of random pictures, at a small batch."""
    import numpy as np

    from rll_tf.training import build

    small = dataclasses.replace(
        settings, weights=None, pixels=None, levels=("low", "mid", "high"), loss="ranked_list",
        loss_parameters={}, classes_per_batch=TIMED_PICTURES // 2, images_per_class=2,
    )  # fmt: skip
    model = build(small)
    side = small.input_px
    pictures = np.random.default_rng(0).random((TIMED_PICTURES, side, side, 3)).astype(np.float32)
    labels = dict.fromkeys(small.levels, np.arange(TIMED_PICTURES) // 2)
    model.train_on_batch(pictures, labels)  # compiles
    start = time.perf_counter()
    for _ in range(TIMED_STEPS):
        model.train_on_batch(pictures, labels)
    return (time.perf_counter() - start) / TIMED_STEPS / TIMED_PICTURES
