"""`rll export`: a run's best checkpoint, with or without a gallery, for TensorFlow Serving."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import click
import keras
import tensorflow as tf

import rll_tf
from rll_tf.training import CONCAT, Run, Settings
from rll_tf.training.build import IMAGENET
from rll_tf.training.commit import source_commit
from rll_tf.training.files import read_json
from serving.export import export as write
from serving.gallery import open_gallery
from serving.guard import Limits
from serving.precision import accuracy_lost
from serving.search import PackedGallery


def export(
    folder: Path,
    to: Path,
    limits: Limits,
    *,
    gallery_file: Path | None = None,
    top: int = 10,
    precision: str = "float32",
) -> None:
    """Export a run's best checkpoint as `to/<version>/`, and print what a gallery's precision costs.

    The arguments are those of `rll export --help`.

    Raises:
        ClickException: the artefact failed its check.
        FileNotFoundError: there is no such run or gallery.
        ValueError: the gallery does not fit the model.
    """
    run = Run.open(folder)
    model = run.best_model()
    metadata = _metadata(run)
    gallery, level = None, CONCAT
    if gallery_file is not None:
        gallery, level, metadata["gallery"] = _pack(gallery_file, model, top, precision)
    try:
        version = write(
            model,
            run.settings.preprocessing,
            to,
            metadata,
            limits=limits,
            gallery=gallery,
            gallery_level=None if level == CONCAT else level,
        )
    except (RuntimeError, subprocess.SubprocessError) as error:
        raise click.ClickException(str(error)) from error
    print(f"exported: {version}")


def _pack(
    file: Path, model: keras.Model, top: int, precision: str
) -> tuple[PackedGallery, str, dict[str, Any]]:
    """The gallery, the level of its embeddings, and what the artefact's metadata says of it."""
    arrays = open_gallery(file)
    level = str(arrays["level"])
    _check_fits(file, level, arrays["embeddings"].shape[1], model)
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
        "exported_by": {
            "rll_tf": rll_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "commit": source_commit(),
        },
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
