"""`make demo`: the whole way on letters that the package draws itself, in a few minutes on two cores."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np

from rll_tf.data import Catalogue, load_pictures, open_dataset
from rll_tf.evaluation import draw_ranked_lists, format_table, pick_ranked_lists, retrieval_metrics
from rll_tf.training import CONCAT, Run, Settings, build, evaluate
from rll_tf.training.files import write_json
from serving.guard import Limits
from trainers.embed import embed
from trainers.export import export
from trainers.train import train

FOLDER = Path("runs", "demo")  # the demo's own; made anew each time
RECIPE = "glyphs"
QUERIES, NEIGHBOURS = 8, 10


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
    metrics = _compare(run, letters)
    write_json(FOLDER / "metrics.json", metrics)
    rows = {"raw pixels": metrics["pixels"]}
    for state in ("untrained", "trained"):
        rows |= {f"{state} {level}": values for level, values in metrics[state].items()}
    print(format_table(rows))

    _say("Export the network with its preprocessing, and let the artefact embed the same letters:")
    print(f"$ rll export {run_folder} --to {exported}")
    export(run_folder, exported, Limits())
    print(f"$ rll embed {exported} --data glyphs --split test --to {gallery}")
    embed(exported, "glyphs", gallery, split="test")
    with np.load(gallery) as arrays:
        picture = _draw(letters, arrays["embeddings"])

    ratio = metrics["trained"][CONCAT]["recall@1"] / metrics["pixels"]["recall@1"]
    _say(f"Recall@1 is {ratio:.2f} times that of raw pixels ({time.monotonic() - start:.0f} s in all).")
    print(f"metrics: {FOLDER / 'metrics.json'}")
    print(f"artefact: {exported}")
    print(f"ranked lists: {picture}")


def _compare(run: Run, letters: Catalogue) -> dict:
    """`{"pixels": M, "untrained": {level: M}, "trained": {level: M}}`."""
    settings: Settings = run.settings
    pixels = load_pictures(letters, settings.preprocessing).astype(np.float32)
    return {
        "pixels": retrieval_metrics(pixels.reshape(len(letters), -1), letters.labels),
        "untrained": evaluate(build(settings), letters, settings.preprocessing),
        "trained": evaluate(run.best_model(), letters, settings.preprocessing),
    }


def _draw(letters: Catalogue, embeddings: np.ndarray) -> Path:
    """Ranked lists of letters, as many with a right nearest neighbour as with a wrong one."""
    lists = pick_ranked_lists(embeddings, letters.labels, QUERIES, NEIGHBOURS)
    assert letters.pixels is not None
    pictures = letters.pixels
    return draw_ranked_lists(
        FOLDER / "ranked_lists.png",
        [pictures[query] for query in lists.queries],
        [[pictures[neighbour] for neighbour in row] for row in lists.neighbours],
        lists.correct,
        distances=lists.distances,
        title="Letters never seen in training",
        subtitle="each picture's nearest neighbours by the exported embedding; failures are shown on purpose",
    )


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)
