"""The command `rll`."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
SKIP_CORRUPT = click.option(
    "--skip-corrupt", is_flag=True, help="Leave out pictures that can't be decoded; list them at the end."
)
ENDPOINT = click.option("--endpoint", metavar="URL", help="Ask http://HOST:PORT or grpc://HOST:PORT instead.")
MODEL_NAME = click.option(
    "--model-name", default="rll_tf", show_default=True, help="What the server calls it."
)
PORT = click.IntRange(0, 65535)

MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130
# Errors whose message says enough.
MISTAKES = (ValueError, OSError, ImportError)


def main() -> None:
    """Run a command; end with status 0, or with one line on standard error and another status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold bytes that are not UTF-8
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit status."""
    try:
        with _native_messages_held():
            rll.main(arguments, prog_name="rll", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return MISTAKE
    except click.ClickException as error:
        return _complain(error.format_message(), MISTAKE)
    except (click.Abort, KeyboardInterrupt, _Interrupted):
        return _complain("interrupted", INTERRUPTED)
    except MISTAKES as error:
        if _debugging():
            traceback.print_exc()
        return _complain(_describe(error), FAILURE)
    return 0


def _debugging() -> bool:
    return bool(os.environ.get("RLL_DEBUG"))


@contextlib.contextmanager
def _native_messages_held() -> Iterator[None]:
    """Hold back what TensorFlow's C++ libraries write to standard error; Python's own messages pass.

    They tell of processors while they load, and of every picture they can't decode, and would bury the one
    line in which a command tells a user's mistake. After any other error they are shown.
    """
    if _debugging():
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    python_stderr = sys.stderr
    python_stderr.flush()
    screen = os.dup(2)
    with (
        tempfile.TemporaryFile() as messages,
        os.fdopen(os.dup(screen), "w", buffering=1, errors="backslashreplace") as passing,
    ):
        os.dup2(messages.fileno(), 2)
        if python_stderr is sys.__stderr__:
            sys.stderr = passing
        try:
            yield
        except (click.ClickException, click.Abort, KeyboardInterrupt, _Interrupted, *MISTAKES):
            raise
        except BaseException:
            messages.seek(0)
            os.write(screen, messages.read())
            raise
        finally:
            sys.stderr = python_stderr
            os.dup2(screen, 2)
            os.close(screen)


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def _complain(message: str, status: int) -> int:
    line = " ".join(message.split())
    print(f"rll: {line}", file=sys.stderr)
    return status


class _Interrupted(BaseException):
    """Control-C, under a name that click does not know: it would print an empty line first."""


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            raise _Interrupted from None


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="rll_tf")
def rll() -> None:
    """Ranked List Loss: train, judge, export and ask an embedding of pictures.

    SPEC names a data set: glyphs, digits, folder:PATH, cub200[:PATH], cars196[:PATH], sop[:PATH],
    inshop[:PATH] or tfds:NAME; rll datasets tells more. Set RLL_DEBUG=1 to see where an error arose
    and what TensorFlow says.
    """


@rll.command()
@click.argument("recipe")
@click.option("--data", metavar="SPEC", help="Train on this data set instead of the recipe's own.")
@click.option("--out", metavar="DIR", type=PATH, help="Run folder [runs/RECIPE].")
@click.option("--set", "assignments", metavar="KEY=VALUE", multiple=True, help="Replace a recipe's setting.")
@click.option("--precision", help="float32, mixed_float16 or mixed_bfloat16: the setting of that name.")
@click.option("--jit", is_flag=True, help="Compile steps with XLA: the setting of that name.")
@click.option("--resume", is_flag=True, help="Continue a run that was interrupted.")
@click.option("--fold", metavar="I/K", help="Validate on part I of K of the training classes.")
@click.option(
    "--cache", metavar="DIR", type=PATH, help="Keep resized pictures here, for this and later runs."
)
@SKIP_CORRUPT
def train(
    recipe: str,
    data: str | None,
    out: Path | None,
    assignments: tuple[str, ...],
    precision: str | None,
    jit: bool,
    resume: bool,
    fold: str | None,
    cache: Path | None,
    skip_corrupt: bool,
) -> None:
    """Train RECIPE and leave a run folder.

    Pictures are split by class: most training classes are trained on, a share (setting validation_share) is
    held out to choose the best checkpoint; with --fold 1/5 to 5/5, each fifth in turn. A data set's test
    classes are never looked at.
    """
    from trainers.recipes import check_recipe, recipe_settings, recipe_spec

    check_recipe(recipe)
    assignments += (f"precision={precision}",) * (precision is not None) + ("jit=true",) * jit
    out = Path("runs", recipe) if out is None else out
    if not resume and (out / "config.json").exists():
        raise FileExistsError(f"{out} holds a run already: take another --out, or continue it with --resume")
    import tensorflow as tf

    from rll_tf.data import PictureCache, open_dataset, report_duplicates
    from rll_tf.data import skip_corrupt as without_corrupt
    from rll_tf.training import Run, Settings
    from rll_tf.training import train as fit

    assignments += _fold_settings(fold)
    # What is wrong is told before any picture is read.
    Settings().override(assignments)
    picture_cache = None if cache is None else PictureCache(cache)
    if resume:
        config, settings = _resumed(Run.open(out), recipe, data, assignments)
        data = config["data"]
        skip_corrupt = config.get("skip_corrupt", False)
    catalogue = open_dataset(recipe_spec(recipe, data))
    for line in report_duplicates(catalogue):
        print(line)
    if skip_corrupt:
        catalogue, skipped = without_corrupt(catalogue)
    if not resume:
        settings = recipe_settings(recipe, catalogue, assignments)
    # The same seed gives the same weights, whether or not training was interrupted.
    tf.config.experimental.enable_op_determinism()
    try:
        finished = fit(
            settings,
            catalogue,
            out,
            recipe=recipe,
            fixed={assignment.partition("=")[0] for assignment in assignments},
            resume=resume,
            cache=picture_cache,
            skip_corrupt=skip_corrupt,
        )
    except KeyboardInterrupt:
        raise click.ClickException(
            f"interrupted; continue with: rll train {recipe} --out {out} --resume"
        ) from None
    if skip_corrupt:
        print("\n".join(skipped.report()))
    _print_run(finished)


def _fold_settings(fold: str | None) -> tuple[str, ...]:
    """`--fold I/K` as settings."""
    if fold is None:
        return ()
    number, slash, folds = fold.partition("/")
    if not (slash and number.isdecimal() and folds.isdecimal() and 1 <= int(number) <= int(folds) >= 2):
        raise ValueError(f"--fold must have the form I/K with 1 ≤ I ≤ K and K at least 2; got {fold!r}")
    return f"validation_folds={int(folds)}", f"validation_fold={int(number)}"


def _resumed(run: Any, recipe: str, data: str | None, assignments: tuple[str, ...]) -> tuple[Any, Any]:
    """The configuration a run began with; what the command line says must not contradict it."""
    config = run.config
    if config["recipe"] != recipe:
        raise ValueError(f"{run.folder} is a run of recipe {config['recipe']!r}; got {recipe!r}")
    if data is not None and data != config["data"]:
        raise ValueError(f"{run.folder} was begun on {config['data']}; got --data {data}")
    settings = run.settings
    if settings.override(assignments) != settings:
        raise ValueError(f"a resumed run keeps its settings; got other values: {' '.join(assignments)}")
    return config, settings


def _print_run(run: Any) -> None:
    from rll_tf.evaluation import format_table
    from rll_tf.training.files import read_json

    result = read_json(run.metrics_file)
    if "validation" in result:
        print(f"validation classes, best checkpoint (step {result['best_step']}):")
        print(format_table(result["validation"]))
    print(f"run: {run.folder}")


@rll.command()
@click.argument("run", type=PATH)
@click.option("--data", metavar="SPEC", help="Judge on this data set instead of the run's own.")
@click.option("--split", metavar="NAME", help="Only this split [a whole folder; test for glyphs and digits].")
@click.option("--json", "json_file", metavar="FILE", type=PATH, help="Write metrics here.")
@click.option("--report", metavar="DIR", type=PATH, help="Write a page with pictures here.")
@SKIP_CORRUPT
def evaluate(
    run: Path,
    data: str | None,
    split: str | None,
    json_file: Path | None,
    report: Path | None,
    skip_corrupt: bool,
) -> None:
    """Judge a RUN's best checkpoint: Recall@K, MAP@R, R-precision, NMI and pairwise F1 by level."""
    from trainers.evaluate import evaluate as judge

    judge(run, data, split, json_file, report, skip_corrupt)


@rll.command()
@click.argument("run", type=PATH)
@click.option("--to", metavar="DIR", required=True, type=PATH, help="Folder of versions.")
@click.option("--gallery", metavar="FILE.npz", type=PATH, help="From embed: answer search requests in it.")
@click.option(
    "--top",
    metavar="K",
    default=10,
    show_default=True,
    type=click.IntRange(1),
    help="How many neighbours search gives.",
)
@click.option(
    "--gallery-precision",
    "precision",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "float16", "int8"]),
    help="Of the packed gallery; what fewer bits lose is printed.",
)
@click.option(
    "--max-pixels",
    metavar="N",
    default=64_000_000,
    show_default=True,
    type=click.IntRange(1),
    help="Refuse pictures that claim more.",
)
@click.option(
    "--max-batch",
    metavar="N",
    default=256,
    show_default=True,
    type=click.IntRange(1),
    help="Refuse requests of more pictures.",
)
def export(
    run: Path, to: Path, gallery: Path | None, top: int, precision: str, max_pixels: int, max_batch: int
) -> None:
    """Export a RUN's best checkpoint for TensorFlow Serving, as DIR/<version>/."""
    from serving.guard import Limits
    from trainers.export import ExportError
    from trainers.export import export as write

    try:
        version = write(run, to, Limits(max_pixels, max_batch), gallery, top, precision)
    except ExportError as error:
        raise click.ClickException(str(error)) from error
    print(f"exported: {version}")


@rll.command()
@click.argument("model", type=PATH, required=False)
@ENDPOINT
@MODEL_NAME
@click.option("--data", metavar="SPEC", required=True, help="The pictures to embed.")
@click.option("--split", metavar="NAME", help="Only this split.")
@click.option("--to", metavar="FILE.npz", required=True, type=PATH, help="Where to.")
@click.option("--level", metavar="NAME", help="One level's embedding [all levels, concatenated].")
@click.option(
    "--batch-size",
    metavar="N",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="Pictures in a request to an endpoint, which may have been exported with a smaller --max-batch.",
)
@SKIP_CORRUPT
def embed(
    model: Path | None,
    endpoint: str | None,
    model_name: str,
    data: str,
    split: str | None,
    to: Path,
    level: str | None,
    batch_size: int,
    skip_corrupt: bool,
) -> None:
    """Embed pictures with an exported MODEL, here or at an endpoint that serves it.

    The file holds the arrays embeddings, labels, paths, class_names and level.
    """
    if (model is None) == (endpoint is None):
        raise click.UsageError(f"either MODEL or --endpoint must be given; got {'both' if model else 'none'}")
    from trainers.answerers import answerer
    from trainers.ask import embed as ask

    ask(lambda: answerer(model, endpoint, model_name, batch_size), data, split, to, level, skip_corrupt)


@rll.command()
@click.argument("words", metavar="[MODEL] IMAGE...", nargs=-1, required=True, type=PATH)
@ENDPOINT
@MODEL_NAME
@click.option(
    "--gallery", metavar="FILE.npz", type=PATH, help="From embed [the gallery packed into the model]."
)
@click.option("--top", metavar="K", default=5, show_default=True, type=click.IntRange(1), help="How many.")
def search(
    words: tuple[Path, ...], endpoint: str | None, model_name: str, gallery: Path | None, top: int
) -> None:
    """Find each IMAGE's nearest pictures of a gallery, with an exported MODEL.

    With --endpoint, every argument is an IMAGE.
    """
    model, images = (words[0], words[1:]) if endpoint is None else (None, words)
    if not images:
        raise click.UsageError("at least one IMAGE must be given")
    from trainers.answerers import answerer
    from trainers.ask import search as ask

    ask(lambda: answerer(model, endpoint, model_name), images, gallery, top)


@rll.command()
@click.argument("model", type=PATH)
@click.option(
    "--port", "--rest-port", "rest_port", default=8501, show_default=True, type=PORT, help="For REST; 0: any."
)
@click.option("--grpc-port", default=8500, show_default=True, type=PORT, help="For gRPC; 0: any.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@MODEL_NAME
@click.option(
    "--batching-parameters",
    "batching_file",
    metavar="FILE",
    type=PATH,
    help="Join requests on the server; TensorFlow Serving's BatchingParameters as text.",
)
def serve(
    model: Path, rest_port: int, grpc_port: int, host: str, model_name: str, batching_file: Path | None
) -> None:
    """Serve an exported MODEL, a folder of versions, by REST and gRPC until Ctrl-C.

    Starts tensorflow_model_server if it is on the path, else the container tensorflow/serving if Docker
    answers, else a development server, and says which.
    """
    from serving.serve import Service
    from serving.serve import serve as run

    status = run(Service(model, model_name, host, rest_port, grpc_port, batching_file))
    if status != 0:
        raise OSError(f"the server ended with status {status}")


@rll.group(invoke_without_command=True)
@click.pass_context
def datasets(context: click.Context) -> None:
    """List the data sets: what each is, what it needs, where it is looked for, whether it is there.

    A benchmark given without a path is looked for in $RLL_DATASETS/NAME, by default
    ~/.rll_tf/datasets/NAME.
    """
    if context.invoked_subcommand is None:
        from trainers.datasets import list_datasets

        list_datasets()


@datasets.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Fetch benchmark NAME into its place; what broke off is continued, sizes and checksums are verified.

    Where no source gives it, the message says what to put where by hand.
    """
    from trainers.datasets import fetch as fetch_dataset

    fetch_dataset(name)


@rll.command()
def demo() -> None:
    """Train on glyphs, compare, export and draw ranked lists, all in runs/demo."""
    from trainers.demo import demo as show

    show()


if __name__ == "__main__":
    main()
