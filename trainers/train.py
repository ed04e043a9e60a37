"""`rll train`: train a recipe on a data set, and leave a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.recipes import Recipe, find_recipe

if TYPE_CHECKING:
    from rll_tf.data import Catalogue
    from rll_tf.training import Run, Settings


def train(
    recipe_name: str,
    *,
    data: str | None = None,
    out: Path | None = None,
    assignments: Sequence[str] = (),
    strategy: str | None = None,
    precision: str | None = None,
    jit: bool = False,
    resume: bool = False,
    fold: str | None = None,
    cache: Path | None = None,
    skip: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train a recipe, print where the run is and how good it is on the validation classes.

    The arguments are those of `rll train --help`; `assignments` are the values of `--set`.

    Raises:
        ValueError, OSError: the recipe, the data, the settings or the folder are not right.
    """
    # What is wrong is reported before TensorFlow is loaded, or at least before any picture is read.
    recipe = find_recipe(recipe_name)
    out = Path("runs", recipe_name) if out is None else out
    if not resume and (out / "config.json").exists():
        raise FileExistsError(f"{out} holds a run already: take another --out, or continue it with --resume")
    assignments = (*assignments, *_fold_settings(fold))
    assignments += (f"strategy={strategy}",) * (strategy is not None)
    assignments += (f"precision={precision}",) * (precision is not None) + ("jit=true",) * jit
    from rll_tf.data import PictureCache, report_duplicates, skip_corrupt
    from rll_tf.training import Run, Settings, is_chief, make_strategy
    from rll_tf.training import train as fit
    from rll_tf.training.tensorboard import FOLDER, check_tensorboard
    from trainers.data import open_data

    if tensorboard:
        check_tensorboard()
    overridden = Settings().override(assignments)
    picture_cache = None if cache is None else PictureCache(cache)
    if resume:
        run = Run.open(out)
        _check_resumed(run, recipe_name, data, assignments)
        data, skip = run.config["data"], run.config.get("skip_corrupt", False)
        overridden = run.settings
        tensorboard = tensorboard or (out / FOLDER).is_dir()
    devices = make_strategy(overridden)  # before anything makes TensorFlow start
    catalogue = open_data(_spec(recipe_name, recipe, data)).set_apart(overridden.test_share)
    for line in report_duplicates(catalogue.without_test()):
        print(line)
    skipped = None
    if skip:
        catalogue, skipped = skip_corrupt(catalogue, but_test=True)
    settings = run.settings if resume else _settings(recipe, catalogue, assignments)
    try:
        finished = fit(
            settings,
            catalogue,
            out,
            recipe=recipe_name,
            fixed={assignment.partition("=")[0] for assignment in assignments},
            resume=resume,
            cache=picture_cache,
            skip_corrupt=skip,
            tensorboard=tensorboard,
            strategy=devices,
        )
    except KeyboardInterrupt as interrupt:
        if not (out / "config.json").exists():
            raise  # nothing is begun
        raise KeyboardInterrupt(
            f"{str(interrupt) or 'interrupted'}; continue with: rll train {recipe_name} --out {out} --resume"
        ) from None
    if skipped is not None:
        print("\n".join(skipped.report()))
    if is_chief(devices):
        _print_result(finished)
        if tensorboard:
            print(f"tensorboard --logdir {out / FOLDER}")


def _fold_settings(fold: str | None) -> tuple[str, ...]:
    """`--fold I/K` as settings."""
    if fold is None:
        return ()
    number, slash, folds = fold.partition("/")
    if not (slash and number.isdecimal() and folds.isdecimal() and 1 <= int(number) <= int(folds) >= 2):
        raise ValueError(f"--fold must have the form I/K with 1 ≤ I ≤ K and K at least 2; got {fold!r}")
    return f"validation_folds={int(folds)}", f"validation_fold={int(number)}"


def _check_resumed(run: Run, recipe_name: str, data: str | None, assignments: Sequence[str]) -> None:
    """What the command line gives must not contradict what a run began with."""
    config = run.config
    if config["recipe"] != recipe_name:
        raise ValueError(f"{run.folder} is a run of recipe {config['recipe']!r}; got {recipe_name!r}")
    if data is not None and data != config["data"]:
        raise ValueError(f"{run.folder} was started on {config['data']}; got --data {data}")
    if run.settings.override(assignments) != run.settings:
        raise ValueError(f"a resumed run keeps its settings; got other values: {' '.join(assignments)}")


def _spec(recipe_name: str, recipe: Recipe, data: str | None) -> str:
    spec = recipe.data if data is None else data
    if spec is None:
        raise ValueError(
            f"recipe {recipe_name} trains on your own pictures: give them with --data folder:PATH"
        )
    return spec


def _settings(recipe: Recipe, catalogue: Catalogue, assignments: Sequence[str]) -> Settings:
    """The recipe's settings for these pictures, some replaced by the user's; what it chose is printed."""
    settings = recipe.settings_for(catalogue, assignments)
    if recipe.choose is not None:
        from rll_tf.data import counted

        weights = "random weights" if settings.weights is None else f"weights={settings.weights}"
        print(
            f"chosen from {counted(len(catalogue), 'picture')} of {counted(catalogue.class_count, 'class')}: "
            f"{settings.backbone} from {weights} at {settings.input_px} px, "
            f"{counted(settings.steps, 'step')} of "
            f"{settings.classes_per_batch} × {settings.images_per_class}, "
            f"learning_rate {settings.learning_rate:g}, margin {settings.margin:g}, "
            f"embedding_dim {settings.embedding_dim}; --set replaces any of them"
        )
    return settings


def _print_result(run: Any) -> None:
    from rll_tf.evaluation import format_table
    from rll_tf.training.files import read_json

    result = read_json(run.metrics_file)
    if "validation" in result:
        best, first = result["best_step"], run.epochs()[0]
        shown = {f"step {best} {level}": values for level, values in result["validation"].items()}
        if best == 0:
            print("training made the embedding no better: the best checkpoint is the one it started from")
        elif first["step"] == 0:
            before = {f"step 0 {level}": values for level, values in first["validation"].items()}
            shown = {**before, **shown}
        print(f"validation classes, before training and at the best checkpoint (step {best}):")
        print(format_table(shown))
    print(f"run: {run.folder}")
