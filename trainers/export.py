"""`rll export`: a run's best checkpoint, or any Keras model, for TensorFlow Serving."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import click
import keras
import tensorflow as tf

import rll_tf
from rll_tf.data import Preprocessing
from rll_tf.progress import waiting
from rll_tf.training import CONCAT, Run, Settings
from rll_tf.training.build import IMAGENET
from rll_tf.training.commit import source_commit
from rll_tf.training.files import read_json
from rll_tf.training.run import LOAD_ERRORS
from serving.any_model import PIXEL_RANGES, as_embedding_model, input_side
from serving.export import export as write
from serving.export import weights_sha256
from serving.gallery import Identity, open_gallery
from serving.guard import Limits
from serving.precision import accuracy_lost
from serving.search import PackedGallery
from serving.versions import check_label, keep_last, set_label


def export(
    source: Path,
    to: Path,
    limits: Limits,
    *,
    pixels: str | None = None,
    input_px: int | None = None,
    resize_px: int | None = None,
    gallery_file: Path | None = None,
    top: int = 10,
    precision: str = "float32",
    label: str | None = None,
    keep: int | None = None,
) -> None:
    """Export a run's best checkpoint, or a file of a model, as `to/<version>/`.

    The arguments are those of `rll export --help`.

    Raises:
        ClickException: the artefact failed its check.
        FileNotFoundError: there is no such run, model or gallery.
        ValueError: the model can't be loaded or gives no embeddings, or the gallery does not fit it.
    """
    if label is not None:
        check_label(label)
    if source.suffix == ".keras":
        model, preprocessing = _open_model(source, pixels, input_px, resize_px)
        metadata: dict[str, Any] = {"model": source.name, "exported_by": _versions()}
    else:
        if (pixels, input_px, resize_px) != (None, None, None):
            raise ValueError(
                "--preprocessing, --input-px and --resize-px are for .keras files; a run has its own"
            )
        run = Run.open(source)
        preprocessing = run.settings.preprocessing
        model = as_embedding_model(run.best_model(), preprocessing)
        metadata = _metadata(run)
    gallery, level = None, CONCAT
    if gallery_file is not None:
        sha256 = weights_sha256(model, preprocessing)
        gallery, level, metadata["gallery"] = _pack(gallery_file, model, sha256, top, precision)
    try:
        with waiting("exporting, and checking what was exported"):
            version = write(
                model,
                preprocessing,
                to,
                metadata,
                limits=limits,
                gallery=gallery,
                gallery_level=None if level == CONCAT else level,
            )
    except (RuntimeError, subprocess.SubprocessError) as error:
        raise click.ClickException(str(error)) from error
    if label is not None:
        set_label(to, label, int(version.name))
    if keep is not None:
        for old in keep_last(to, keep):
            print(f"deleted: {to / str(old)}")
    print(f"exported: {version}")


def _open_model(
    file: Path, pixels: str | None, input_px: int | None, resize_px: int | None
) -> tuple[keras.Model, Preprocessing]:
    """Any Keras model as one of embeddings, and its preprocessing."""
    if pixels is None:
        raise ValueError(
            f"{file} does not record how it takes pixels: give --preprocessing {'|'.join(PIXEL_RANGES)}"
        )
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} must be a model that Keras saved; it is no archive, or is not whole")
    try:
        model = keras.models.load_model(file, compile=False)
    except LOAD_ERRORS as error:
        # Without the configuration of the whole model, and of the layer.
        reason = str(error).rpartition("Exception encountered: ")[2].partition(" Full object config")[0]
        raise ValueError(
            f"{file} can't be loaded: {reason}; with layers of your own, call serving.export.export in Python"
        ) from error
    side = input_px or input_side(model)
    if side is None:
        raise ValueError(f"{file} takes pictures of any size: give --input-px")
    preprocessing = Preprocessing(side, resize_px or side, **PIXEL_RANGES[pixels])
    return as_embedding_model(model, preprocessing), preprocessing


def _pack(
    file: Path, model: keras.Model, sha256: str, top: int, precision: str
) -> tuple[PackedGallery, str, dict[str, Any]]:
    """The gallery, the level of its embeddings, and what the artefact's metadata says of it."""
    arrays = open_gallery(file)
    level = str(arrays["level"])
    _check_fits(file, level, arrays["embeddings"].shape[1], model)
    Identity(weights_sha256=sha256).check_embedded(file, arrays)
    try:
        gallery = PackedGallery(arrays, top, precision)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    lost = None
    if precision != "float32":
        lost = accuracy_lost(arrays["embeddings"], arrays["labels"], gallery.restored(), gallery.top)
        print(_describe_loss(precision, lost))
    described = {
        "rows": gallery.rows,
        "level": level,
        "precision": precision,
        "top": gallery.top,
        "accuracy_lost": lost,
    }
    return gallery, level, described


def _metadata(run: Run) -> dict[str, Any]:
    """What the run's files say, and which versions export it."""
    config = run.config
    return {
        **{key: config[key] for key in ("recipe", "data", "versions")},
        "commit": config.get("commit"),
        "metrics": read_json(run.metrics_file) if run.metrics_file.is_file() else None,
        "licence": _licence(run.settings),
        "exported_by": _versions(),
    }


def _versions() -> dict[str, str | None]:
    return {
        "rll_tf": rll_tf.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "commit": source_commit(),
    }


def _licence(settings: Settings) -> str:
    if settings.weights is None:
        return "trained from random weights: the licence is its trainer's to choose, within that of the data"
    if settings.weights == IMAGENET and settings.backbone.startswith("efficientnet_lite"):
        return (
            "trained from EfficientNet-Lite's ImageNet weights, which are under the Apache License 2.0, "
            "and within the licence of the data"
        )
    return (
        f"trained from the weights in {Path(settings.weights).name}, whose licence is not known here, "
        "and within the licence of the data"
    )


def _check_fits(file: Path, level: str, dim: int, model: keras.Model) -> None:
    dims = {name: int(output.shape[-1]) for name, output in model.output.items()}
    dims[CONCAT] = sum(dims.values())
    if level not in dims:
        raise ValueError(
            f"{file} must hold embeddings of one of the model's levels ({', '.join(dims)}); "
            f"it holds those of {level}"
        )
    if dim != dims[level]:
        raise ValueError(
            f"{file} must hold embeddings of this model ({dims[level]} numbers each at {level}); "
            f"it holds {dim} numbers each"
        )


def _describe_loss(precision: str, lost: dict[str, float] | None) -> str:
    if lost is None:
        return f"gallery in {precision}: of a single row, no loss can be measured"
    text = (
        f"gallery in {precision}, against float32: of {lost['queries']} rows searched for among the others, "
        f"{lost['top_1_changed']:.2%} have another nearest neighbour, "
        f"{lost['top_k_changed']:.2%} of the nearest {lost['k']} are others"
    )
    if "recall@1_before" in lost:
        text += f"; Recall@1 {lost['recall@1_before']:.2%} before, {lost['recall@1_after']:.2%} after"
    return text
