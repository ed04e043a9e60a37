"""`rll demo`: the whole way on letters that the package draws itself, or on a folder of photographs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rll_tf.data import Catalogue, Preprocessing, load_pictures, open_dataset, skip_corrupt
from rll_tf.evaluation import concatenate_levels, format_table, retrieval_metrics
from rll_tf.training import CONCAT, Run, Settings, build, evaluate, evaluate_embeddings
from rll_tf.training import embed as embed_pictures
from rll_tf.training.files import read_json, write_json
from rll_tf.training.lists import draw_lists
from serving.guard import Limits
from trainers.compare import TEST_SHARE
from trainers.embed import embed
from trainers.export import export
from trainers.train import train

FOLDER, PHOTOS_FOLDER = Path("runs", "demo"), Path("runs", "demo-photos")  # made anew each time
RECIPE, PHOTOS_RECIPE = "glyphs", "folder"
RAW_PIXELS = Preprocessing(32, 32)


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
    picture = _draw(FOLDER, embeddings, letters, "Letters", "the exported embedding")

    _conclude(metrics, "untrained", start)
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

    _say(
        "How often is the nearest other photograph of the same class? On the classes never seen, by "
        "raw pixels, by the features of ImageNet's weights (pretrained) and by the best checkpoint:"
    )
    run = Run.open(run_folder)
    settings: Settings = run.settings
    pretrained = embed_pictures(_features(build(settings)), unseen, settings.preprocessing)
    trained = embed_pictures(run.best_model(), unseen, settings.preprocessing)
    metrics = {
        "pixels": _pixel_metrics(unseen, RAW_PIXELS),
        "pretrained": evaluate_embeddings(pretrained, unseen.labels),
        "trained": evaluate_embeddings(trained, unseen.labels),
    }
    step = read_json(run.metrics_file)["best_step"]
    _show(metrics, PHOTOS_FOLDER, "pretrained", f"step {step}")
    whose = f"the embedding at step {step}"
    picture = _draw(PHOTOS_FOLDER, concatenate_levels(trained), unseen, "Classes", whose)
    _conclude(metrics, "pretrained", start)
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


def _show(metrics: dict[str, Any], folder: Path, before: str, after: str = "trained") -> None:
    """Write `{"pixels": M, before: {level: M}, "trained": {level: M}}`, and print it as a table."""
    write_json(folder / "metrics.json", metrics)
    rows = {"raw pixels": metrics["pixels"]}
    for name, state in ((before, before), (after, "trained")):
        rows |= {f"{name} {level}": values for level, values in metrics[state].items()}
    print(format_table(rows))


def _draw(folder: Path, embeddings: np.ndarray, pictures: Catalogue, what: str, whose: str) -> Path:
    """Ranked lists of some pictures, as many with a right nearest neighbour as with a wrong one."""
    subtitle = f"each picture's nearest neighbours by {whose}; failures are shown on purpose"
    title = f"{what} never seen in training"
    return draw_lists(folder / "ranked_lists.png", embeddings, pictures, title, subtitle)


def _conclude(metrics: dict[str, Any], before: str, start: float) -> None:
    """Recall@1 at each stage, of all levels side by side."""
    stages = {
        "pixels": metrics["pixels"],
        before: metrics[before][CONCAT],
        "trained": metrics["trained"][CONCAT],
    }
    shares = ", ".join(f"{stage} {100 * values['recall@1']:.1f}" for stage, values in stages.items())
    _say(f"Recall@1 in percent: {shares} ({time.monotonic() - start:.0f} s in all).")


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)
