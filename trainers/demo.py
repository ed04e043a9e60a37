"""`rll demo`: the whole way on letters that the package draws itself, or on a folder of photographs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rll_tf.data import Catalogue, Preprocessing, load_pictures, open_dataset, skip_corrupt
from rll_tf.evaluation import (
    concatenate_levels,
    draw_ranked_lists,
    format_table,
    pick_ranked_lists,
    retrieval_metrics,
)
from rll_tf.training import CONCAT, Run, Settings, build, evaluate, evaluate_embeddings
from rll_tf.training import embed as embed_pictures
from rll_tf.training.files import write_json
from serving.guard import Limits
from trainers.compare import TEST_SHARE
from trainers.embed import embed
from trainers.export import export
from trainers.train import train

FOLDER, PHOTOS_FOLDER = Path("runs", "demo"), Path("runs", "demo-photos")  # made anew each time
RECIPE, PHOTOS_RECIPE = "glyphs", "folder"
QUERIES, NEIGHBOURS = 8, 10
RAW_PIXELS = Preprocessing(32, 32)
SHOWN = Preprocessing(128, 128)


def demo() -> None:
    """Train, compare, export, embed, draw."""
    start = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    run_folder, exported, gallery = FOLDER / "run", FOLDER / "exported", FOLDER / "gallery.npz"

    _say("Letters of many alphabets in sixteen fonts; half of them are never seen in training.")
    print(f"$ rll train {RECIPE} --out {run_folder}")
    train(RECIPE, out=run_folder)

    _say("How often is the nearest other picture the same letter? On the letters never seen:")
    letters = open_dataset("glyphs").select("test")
    run = Run.open(run_folder)
    settings: Settings = run.settings
    metrics = {
        "pixels": _pixel_metrics(letters, settings.preprocessing),
        "untrained": evaluate(build(settings), letters, settings.preprocessing),
        "trained": evaluate(run.best_model(), letters, settings.preprocessing),
    }
    _show(metrics, FOLDER, "untrained")

    _say("Export the network with its preprocessing, and let the artefact embed the same letters:")
    print(f"$ rll export {run_folder} --to {exported}")
    export(run_folder, exported, Limits())
    print(f"$ rll embed {exported} --data glyphs --split test --to {gallery}")
    embed(exported, "glyphs", gallery, split="test")
    with np.load(gallery) as arrays:
        embeddings = arrays["embeddings"]
    assert letters.pixels is not None
    picture = _draw(FOLDER, letters, embeddings, letters.pixels.__getitem__, "Letters", "the exported")

    _conclude(metrics, start)
    print(f"metrics: {FOLDER / 'metrics.json'}")
    print(f"artefact: {exported}")
    print(f"ranked lists: {picture}")


def demo_photos(photos: Path) -> None:
    """Train from ImageNet's weights on half of a folder's classes; compare and draw on the other half.

    Raises:
        FileNotFoundError, ValueError: the folder isn't there, or holds fewer than four classes.
        ImportError: ImageNet's weights are not installed.
    """
    from rll_tf.models import imagenet_weights

    imagenet_weights("efficientnet_lite0")
    start = time.monotonic()
    data, run_folder = f"folder:{photos}", PHOTOS_FOLDER / "run"
    unseen, _ = skip_corrupt(open_dataset(data).set_apart(TEST_SHARE).select("test"))
    shutil.rmtree(PHOTOS_FOLDER, ignore_errors=True)

    _say(f"Photographs of {photos}; half of the classes are never seen in training.")
    assignments = (f"test_share={TEST_SHARE}", "weights=imagenet")
    words = " ".join(f"--set {assignment}" for assignment in assignments)
    print(f"$ rll train {PHOTOS_RECIPE} --data {data} {words} --out {run_folder} --skip-corrupt")
    train(PHOTOS_RECIPE, data=data, out=run_folder, assignments=assignments, skip=True)

    _say("How often is the nearest other photograph of the same class? On the classes never seen:")
    run = Run.open(run_folder)
    settings: Settings = run.settings
    pretrained = embed_pictures(_features(build(settings)), unseen, settings.preprocessing)
    trained = embed_pictures(run.best_model(), unseen, settings.preprocessing)
    metrics = {
        "pixels": _pixel_metrics(unseen, RAW_PIXELS),
        "pretrained": evaluate_embeddings(pretrained, unseen.labels),
        "trained": evaluate_embeddings(trained, unseen.labels),
    }
    _show(metrics, PHOTOS_FOLDER, "pretrained")

    def shown(index: int) -> np.ndarray:
        return load_pictures(unseen.take(np.array([index])), SHOWN)[0]

    embeddings = concatenate_levels(trained)
    picture = _draw(PHOTOS_FOLDER, unseen, embeddings, shown, "Classes", "the trained")
    _conclude(metrics, start)
    print(f"metrics: {PHOTOS_FOLDER / 'metrics.json'}")
    print(f"run: {run_folder}")
    print(f"ranked lists: {picture}")


def _features(model: keras.Model) -> keras.Model:
    """What each head of an EfficientNet-Lite reads, of unit norm: pooled features of ImageNet's weights."""
    unit = keras.layers.UnitNormalization()
    return keras.Model(
        model.input, {level: unit(model.get_layer(f"{level}_pool").output) for level in model.output}
    )


def _pixel_metrics(pictures: Catalogue, preprocessing: Preprocessing) -> dict[str, float]:
    pixels = load_pictures(pictures, preprocessing).astype(np.float32)
    return retrieval_metrics(pixels.reshape(len(pictures), -1), pictures.labels)


def _show(metrics: dict[str, Any], folder: Path, before: str) -> None:
    """Write `{"pixels": M, before: {level: M}, "trained": {level: M}}`, and print it as a table."""
    write_json(folder / "metrics.json", metrics)
    rows = {"raw pixels": metrics["pixels"]}
    for state in (before, "trained"):
        rows |= {f"{state} {level}": values for level, values in metrics[state].items()}
    print(format_table(rows))


def _draw(
    folder: Path,
    pictures: Catalogue,
    embeddings: np.ndarray,
    shown: Callable[[int], np.ndarray],
    what: str,
    whose: str,
) -> Path:
    """Ranked lists of some pictures, as many with a right nearest neighbour as with a wrong one."""
    lists = pick_ranked_lists(embeddings, pictures.labels, QUERIES, NEIGHBOURS)
    return draw_ranked_lists(
        folder / "ranked_lists.png",
        [shown(query) for query in lists.queries],
        [[shown(neighbour) for neighbour in row] for row in lists.neighbours],
        lists.correct,
        distances=lists.distances,
        title=f"{what} never seen in training",
        subtitle=f"each picture's nearest neighbours by {whose} embedding; failures are shown on purpose",
    )


def _conclude(metrics: dict[str, Any], start: float) -> None:
    ratio = metrics["trained"][CONCAT]["recall@1"] / metrics["pixels"]["recall@1"]
    _say(f"Recall@1 is {ratio:.2f} times that of raw pixels ({time.monotonic() - start:.0f} s in all).")


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)
