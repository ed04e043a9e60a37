"""The command `rll`: its arguments. What each command does is in the module of its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainers import console

PATH = click.Path(path_type=Path)
PORT = click.IntRange(0, 65535)
POSITIVE = click.IntRange(1)
SKIP_CORRUPT = click.option(
    "--skip-corrupt",
    "skip",
    is_flag=True,
    help="Leave out pictures that can't be decoded; list them at the end.",
)
ENDPOINT = click.option("--endpoint", metavar="URL", help="Use http://HOST:PORT or grpc://HOST:PORT instead.")
MODEL_NAME = click.option("--model-name", default="rll_tf", help="The model's name on the server.")


def main() -> None:
    """Run a command; end with status 0, or with one line on standard error and another status."""
    console.main(rll)


def run(arguments: list[str]) -> int:
    """Run a command and return its exit status."""
    return console.run(rll, arguments)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
)
@click.version_option(package_name="rll_tf")
def rll() -> None:
    """Ranked List Loss: train, evaluate, export and serve an embedding of pictures.

    SPEC names a data set: glyphs, digits, folder:PATH, csv:FILE, cub200[:PATH], cars196[:PATH],
    sop[:PATH], inshop[:PATH] or tfds:NAME; see rll datasets. Set RLL_DEBUG=1 to see an error's traceback
    and TensorFlow's own messages.
    """


@rll.command()
@click.argument("recipe")
@click.option("--data", metavar="SPEC", help="Train on this data set instead of the recipe's own.")
@click.option("--out", metavar="DIR", type=PATH, help="Run folder [runs/RECIPE].")
@click.option("--set", "assignments", metavar="KEY=VALUE", multiple=True, help="Replace a recipe's setting.")
@click.option("--strategy", help="none, mirrored or multi_worker: the setting of that name.")
@click.option(
    "--precision",
    help="float32, float64, mixed_float16 or mixed_bfloat16: the setting of that name [float32 on a CPU; on "
    "a GPU what it supports best].",
)
@click.option("--jit", is_flag=True, help="Compile steps with XLA: the setting of that name.")
@click.option("--resume", is_flag=True, help="Continue a run that was interrupted.")
@click.option("--fold", metavar="I/K", help="Validate on part I of K of the training classes.")
@click.option(
    "--cache", metavar="DIR", type=PATH, help="Keep resized pictures here, for this and later runs."
)
@click.option("--tensorboard", is_flag=True, help="Write what TensorBoard shows to DIR/tensorboard.")
@SKIP_CORRUPT
def train(recipe: str, **options: Any) -> None:
    """Train RECIPE and write a run folder.

    rll recipes lists the recipes, rll settings RECIPE what --set can change.

    With --set loss=NAME another loss is trained: ranked_list, triplet_semihard, triplet_hard, lifted_struct,
    n_pair, struct_clust, spectral_clust, proxy_nca, proxy_anchor or multi_similarity; --set loss.KEY=VALUE
    sets its parameter KEY. rll settings lists these too.

    Pictures are split by class: most training classes are trained on, a share (setting validation_share) is
    held out to choose the best checkpoint; with --fold 1/5 to 5/5, each fifth in turn. A data set's test
    classes are never used.

    With --strategy mirrored every GPU takes its share of each batch, or, with --set replicas=N, N of them
    or N parts of the CPU. With --strategy multi_worker each worker of TF_CONFIG does; start the command on
    each, with a --out that all can read.
    """
    from trainers.train import train

    train(recipe, **options)


@rll.command()
@click.argument("runs", metavar="RUN...|GALLERY", nargs=-1, required=True, type=PATH)
@click.option("--data", metavar="SPEC", help="Evaluate on this data set instead of the run's own.")
@click.option("--split", metavar="NAME", help="Only this split [a whole folder; test for glyphs and digits].")
@click.option("--json", "json_file", metavar="FILE", type=PATH, help="Write metrics here.")
@click.option("--report", metavar="DIR", type=PATH, help="Write a page with pictures here.")
@SKIP_CORRUPT
def evaluate(runs: tuple[Path, ...], **options: Any) -> None:
    """Evaluate a RUN's best checkpoint: Recall@K, MAP@R, R-precision, NMI and pairwise F1 by level.

    Several runs on the same pictures are shown side by side; the page's ranked lists are the first run's.

    Or evaluate a GALLERY, FILE.npz or a folder of Parquet files from embed, by its labels.
    """
    from trainers.evaluate import evaluate

    evaluate(runs, **options)


@rll.command()
@click.option("--data", metavar="SPEC", required=True, help="Train and validate on this data set.")
@click.option("--test", metavar="SPEC", help="Test on this one [the data set's own test classes].")
@click.option("--out", metavar="DIR", required=True, type=PATH, help="Results and runs.")
@click.option(
    "--losses", metavar="NAME,…", help="NAME or NAME:LEVELS each [every loss; ranked_list on all levels too]."
)
@click.option("--levels", metavar="LEVELS", default="high", help="For losses named without levels.")
@click.option(
    "--recipe", metavar="NAME", help="Its settings are the base [folder; convnet for glyphs, digits]."
)
@click.option("--seeds", metavar="N", default=5, type=POSITIVE, help="Runs of each loss's best setting.")
@click.option("--trials", metavar="N", default=8, type=POSITIVE, help="Settings tried for each loss.")
@click.option("--steps", metavar="N", type=POSITIVE, help="The setting of that name.")
@click.option("--set", "assignments", metavar="KEY=VALUE", multiple=True, help="Replace a setting for all.")
@click.option("--jobs", metavar="N", default=1, type=POSITIVE, help="Training runs side by side.")
@click.option("--pictures/--no-pictures", default=True, help="Whether the page shows ranked lists.")
def compare(**options: Any) -> None:
    """Compare losses fairly on your pictures, and write results.json, results.md and index.html.

    One backbone, batch and number of steps for all. Each loss's parameters are searched with the same number
    of trials on validation classes; its best setting is trained with N seeds and tested once, at the end. A
    folder's test classes are half of its classes, set apart at random. After a kill, the same command
    continues.
    """
    from trainers.compare import compare

    compare(**options)


@rll.command()
@click.argument("table")
@click.option("--data", metavar="SPEC", help="Another data set than the paper's.")
@click.option("--test", metavar="SPEC", help="Test on this one [the data set's own test classes].")
@click.option("--out", metavar="DIR", type=PATH, help="Results and runs [runs/TABLE].")
@click.option("--recipe", metavar="NAME", help="Its settings are the base [the paper's for its data sets].")
@click.option(
    "--settings", default="paper", type=click.Choice(["paper", "2019"]), help="Or the 2019 release's."
)
@click.option("--seeds", metavar="N", default=1, type=POSITIVE, help="Runs of each row.")
@click.option("--steps", metavar="N", type=POSITIVE, help="The setting of that name.")
@click.option("--set", "assignments", metavar="KEY=VALUE", multiple=True, help="Replace a setting for all.")
@click.option("--jobs", metavar="N", default=1, type=POSITIVE, help="Training runs side by side.")
@click.option("--pictures/--no-pictures", default=True, help="Whether the page shows ranked lists.")
@click.option("--dry-run", is_flag=True, help="Print what is missing, the runs and about how long they take.")
def reproduce(table: str, **options: Any) -> None:
    """Train the rows of the paper's TABLE, table1 to table7, and write what rll compare writes.

    On CARS196 and CUB-200-2011 (table1) or SOP (the others), or with --data on other pictures. Nothing is
    searched. The paper's own numbers have a column of their own. After a kill, the same command continues.
    """
    from trainers.reproduce import reproduce

    reproduce(table, **options)


@rll.command()
@click.argument("model", metavar="RUN|MODEL.keras", type=PATH)
@click.option("--to", metavar="DIR", required=True, type=PATH, help="Folder of versions.")
@click.option(
    "--preprocessing",
    "pixels",
    type=click.Choice(["raw", "0-1", "tf", "torch", "caffe"]),
    help="How MODEL.keras takes pixels: raw is 0 to 255, tf is -1 to 1, torch and caffe as Keras's modes.",
)
@click.option("--input-px", metavar="N", type=POSITIVE, help="The side of its pictures [the model's own].")
@click.option("--resize-px", metavar="N", type=POSITIVE, help="Resize to this, then crop [--input-px].")
@click.option(
    "--gallery",
    "gallery_file",
    metavar="FILE.npz|DIR",
    type=PATH,
    help="From embed: packed into the model, for search requests.",
)
@click.option("--top", metavar="K", default=10, type=POSITIVE, help="How many neighbours search returns.")
@click.option(
    "--gallery-precision",
    "precision",
    default="float32",
    type=click.Choice(["float32", "float16", "int8"]),
    help="Of the packed gallery; what fewer bits cost is printed.",
)
@click.option(
    "--max-pixels", metavar="N", default=64_000_000, type=POSITIVE, help="Reject pictures of more pixels."
)
@click.option(
    "--max-batch", metavar="N", default=256, type=POSITIVE, help="Reject requests of more pictures."
)
@click.option("--label", metavar="NAME", help="Point the label NAME to the new version.")
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(2),
    help="Then delete all but the newest N and the labelled versions.",
)
def export(model: Path, to: Path, max_pixels: int, max_batch: int, **options: Any) -> None:
    """Export a RUN's best checkpoint, or any Keras model, for TensorFlow Serving, as DIR/<version>/.

    A model may have one embedding [B, d] as its output, or several; they are brought to unit norm.
    """
    from serving.guard import Limits
    from trainers.export import export

    export(model, to, Limits(max_pixels, max_batch), **options)


@rll.command()
@click.argument("model", type=PATH, required=False)
@ENDPOINT
@MODEL_NAME
@click.option("--data", metavar="SPEC", required=True, help="The pictures to embed.")
@click.option("--split", metavar="NAME", help="Only this split.")
@click.option("--to", metavar="FILE.npz|DIR", required=True, help="The file to write; with Beam, the folder.")
@click.option("--level", metavar="NAME", help="Only this level's embedding [all levels, concatenated].")
@click.option(
    "--batch-size",
    metavar="N",
    default=64,
    type=POSITIVE,
    help="Pictures per request to an endpoint; at most the --max-batch of its export.",
)
@SKIP_CORRUPT
@click.option(
    "--engine",
    type=click.Choice(["local", "beam"]),
    default="local",
    help="beam: an Apache Beam pipeline, for any number of pictures, which writes Parquet.",
)
@click.option("--engine-args", metavar="'--KEY=VALUE …'", default="", help="Beam's options.")
@click.option("--shards", metavar="N", type=POSITIVE, help="Beam's Parquet files [as the engine chooses].")
def embed(
    model: Path | None,
    endpoint: str | None,
    engine: str,
    engine_args: str,
    shards: int | None,
    **options: Any,
) -> None:
    """Embed pictures with an exported MODEL, here or at an endpoint that serves it.

    The file holds the arrays embeddings, labels, paths, class_names and level.

    With --engine beam, DIR gets embeddings-*.parquet and, for pictures that can't be read (they don't stop
    it), unreadable-*.jsonl. A folder: or csv: may be on any filesystem that Beam reads, such as gs://; see
    docs/scale.md.
    """
    if (model is None) == (endpoint is None):
        raise click.UsageError(f"either MODEL or --endpoint must be given; got {'both' if model else 'none'}")
    if engine == "beam":
        if model is None:
            raise click.UsageError("--engine beam needs MODEL: its workers load it themselves")
        from trainers.embed_beam import embed_beam

        chosen = {name: options[name] for name in ("data", "to", "split", "level")}
        embed_beam(model, engine_args=engine_args, shards=shards, **chosen)
        return
    from trainers.embed import embed

    embed(model, endpoint=endpoint, **options)


@rll.command()
@click.argument("gallery", metavar="GALLERY", type=PATH)
@click.option("--to", metavar="DIR", required=True, type=PATH, help="The folder to write.")
@click.option(
    "--kind", metavar="NAME", help="The kind of index, as for FAISS's index_factory [by the number of rows]."
)
@click.option("--recall", metavar="R", default=0.95, type=click.FloatRange(0, 1), help="Recall@10 to reach.")
def index(gallery: Path, to: Path, **options: Any) -> None:
    """Build a FAISS index of GALLERY, FILE.npz or a folder of Parquet files from embed, for search.

    Flat, hence exact, for up to 20,000 rows; HNSW for up to a million; IVF beyond. It searches as hard
    as the recall requires; the recall is measured against exact search on 1,000 rows and printed.
    """
    from trainers.index import index

    index(gallery, to, **options)


@rll.command()
@click.argument("paths", metavar="[MODEL] IMAGE...", nargs=-1, required=True, type=PATH)
@ENDPOINT
@MODEL_NAME
@click.option(
    "--gallery",
    "gallery_file",
    metavar="FILE.npz|DIR",
    type=PATH,
    help="From embed, or an index of it [the gallery packed into the model].",
)
@click.option("--top", metavar="K", default=5, type=POSITIVE, help="How many neighbours.")
def search(paths: tuple[Path, ...], endpoint: str | None, **options: Any) -> None:
    """Find each IMAGE's nearest pictures of a gallery, with an exported MODEL.

    With --endpoint, every argument is an IMAGE.
    """
    model, images = (paths[0], paths[1:]) if endpoint is None else (None, paths)
    if not images:
        raise click.UsageError("at least one IMAGE must be given")
    from trainers.search import search

    search(model, images, endpoint=endpoint, **options)


@rll.command()
@click.argument("model", type=PATH)
@click.option("--port", "--rest-port", "rest_port", default=8501, type=PORT, help="For REST; 0: any.")
@click.option("--grpc-port", default=8500, type=PORT, help="For gRPC; 0: any.")
@click.option("--host", default="127.0.0.1", help="The address to listen on.")
@MODEL_NAME
@click.option(
    "--batching-parameters",
    "batching_file",
    metavar="FILE",
    type=PATH,
    help="Join requests on the server; TensorFlow Serving's BatchingParameters as text.",
)
@click.option("--access-log", is_flag=True, help="Development server: log requests that succeed too.")
@click.option(
    "--page",
    is_flag=True,
    help="Development server: show its page to other machines too.",
)
def serve(model: Path, model_name: str, **options: Any) -> None:
    """Serve an exported MODEL, a folder of versions, by REST and gRPC until Ctrl-C.

    Starts tensorflow_model_server if it is on the path, else the container tensorflow/serving if Docker
    runs, else a development server, and prints which. The development server shows a page at / to try
    the model with.
    """
    from serving.serve import Service
    from trainers.serve import serve

    serve(Service(model, model_name, **options))


@rll.command()
@click.argument("model", type=PATH)
@click.argument("label")
@click.argument("version", type=POSITIVE)
def label(model: Path, label: str, version: int) -> None:
    """Point LABEL to VERSION of an exported MODEL, a folder of versions; its servers follow."""
    from serving.versions import set_label

    set_label(model, label, version)
    print(f"{label}: version {version}")


@rll.command()
@click.argument("model", type=PATH)
def rollback(model: Path) -> None:
    """Withdraw the newest version of an exported MODEL; its servers go back to the one before.

    The folder stays, as withdrawn-VERSION.
    """
    from serving.versions import roll_back

    withdrawn, served = roll_back(model)
    print(f"version {withdrawn} is withdrawn; version {served} is served")


@rll.group(invoke_without_command=True)
@click.pass_context
def datasets(context: click.Context) -> None:
    """List the data sets: what each is, what it needs, its path, whether it is there.

    A benchmark given without a path is looked for in $RLL_DATASETS/NAME, by default
    ~/.rll_tf/datasets/NAME.
    """
    if context.invoked_subcommand is None:
        from trainers.datasets import list_datasets

        list_datasets()


@datasets.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Fetch benchmark NAME to its path; a broken download is continued, sizes and checksums are verified.

    Where no source has it, the message says which files to put there by hand.
    """
    from trainers.datasets import fetch

    fetch(name)


@rll.command()
def recipes() -> None:
    """List the recipes: the data, the backbone and the weights that each starts from."""
    from trainers.list_recipes import list_recipes

    list_recipes()


@rll.command()
@click.argument("folder", type=PATH, default="runs")
def runs(folder: Path) -> None:
    """List the runs in FOLDER: how far and how good each is, and the settings in which they differ."""
    from trainers.list_runs import list_runs

    list_runs(folder)


@rll.command()
@click.argument("recipe", required=False)
def settings(recipe: str | None) -> None:
    """List what rll train --set can change: defaults, or the values of RECIPE."""
    from trainers.list_settings import list_settings

    list_settings(recipe)


@rll.command()
@click.option("--photos", metavar="FOLDER", type=PATH, help="On photographs, a directory for each class.")
def demo(photos: Path | None) -> None:
    """Train on glyphs, compare, export and draw ranked lists, all in runs/demo.

    With --photos, train on half of the classes of a folder, from ImageNet's weights, and compare pixels,
    pretrained features and the trained embedding on the other half; all in runs/demo-photos.
    """
    from trainers import demo

    if photos is None:
        demo.demo()
    else:
        demo.demo_photos(photos)


if __name__ == "__main__":
    main()
