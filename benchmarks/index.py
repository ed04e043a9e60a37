"""An index against exact search: `python -m benchmarks.index [--rows N] [--noise X] [--kinds K …]`.

    recall@10  the share of the ten exactly nearest that the index finds, on 1,000 queries that are no rows
    queries/s  one at a time, as a server gets them, and 1,000 at a time, with all cores
    exact      of the rows as they are, by the kind Flat, which is FAISS's exact scan

Rows are simulated: classes of 20, normally distributed in a space of 32 dimensions with --noise times the
spread of their centres, mapped at random to 512 numbers of unit norm, with a little noise of each. Trained
embeddings lie on few dimensions, too. Kinds are FAISS's names; "auto" is what `rll index` chooses.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from serving.index import INDEX_FILE, Index, build_index, import_faiss

DIM, LATENT, PER_CLASS, TOP, QUERIES = 512, 32, 20, 10, 1000


def simulate(rows: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows [rows, DIM] and queries [QUERIES, DIM] of the same classes, float32 of unit norm."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=[-(-rows // PER_CLASS), LATENT]).astype(np.float32)
    projection = rng.normal(size=[LATENT, DIM]).astype(np.float32)

    def draw(classes: np.ndarray) -> np.ndarray:
        points = centres[classes] + noise * rng.normal(size=[len(classes), LATENT]).astype(np.float32)
        vectors = points @ projection
        vectors += 0.05 * np.sqrt(LATENT) * rng.normal(size=vectors.shape).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return draw(np.arange(rows) // PER_CLASS), draw(rng.integers(0, len(centres), QUERIES))


def measure(folder: Path, queries: np.ndarray, exact: np.ndarray) -> dict[str, Any]:
    """Recall, speed and size of an index."""
    index = Index(folder)
    faiss_index = index._index  # what takes the time, without the names of what is found
    found = faiss_index.search(queries, TOP)[1]
    singles = queries[:200]
    start = time.perf_counter()
    for query in singles:
        faiss_index.search(query[np.newaxis], TOP)
    alone = len(singles) / (time.perf_counter() - start)
    start = time.perf_counter()
    faiss_index.search(queries, TOP)
    together = len(queries) / (time.perf_counter() - start)
    return {
        "kind": index.metadata["kind"],
        "effort": index.metadata["effort"],
        "recall@10": float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)])),
        "queries/s, one at a time": alone,
        "queries/s, 1000 at a time": together,
        "MB": (folder / INDEX_FILE).stat().st_size / 1e6,
    }


def main() -> None:
    """Print a line per kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--kinds", nargs="+", default=["Flat", "HNSW32", "IVF2048,Flat", "IVF2048,SQ8"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, queries = simulate(arguments.rows, arguments.noise)
    exact = import_faiss().knn(queries, rows, TOP)[1]
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "gallery.npz"
        np.savez(
            file,
            embeddings=rows,
            labels=np.arange(len(rows)) // PER_CLASS,
            paths=np.array([f"{row}.jpg" for row in range(len(rows))]),
            class_names=np.array([f"class {name}" for name in range(-(-len(rows) // PER_CLASS))]),
            level=np.array("concat"),
        )
        for number, kind in enumerate(arguments.kinds):
            folder = Path(scratch) / str(number)
            start = time.perf_counter()
            build_index(file, folder, kind=None if kind == "auto" else kind)
            built_s = time.perf_counter() - start
            result = {"built_s": built_s, **measure(folder, queries, exact)}
            results.append(result)
            print(
                f"{result['kind']:>14}  effort {result['effort'] or '-':>5}"
                f"  recall@10 {result['recall@10']:.3f}"
                f"  {result['queries/s, one at a time']:8,.0f} queries/s alone"
                f"  {result['queries/s, 1000 at a time']:8,.0f} together"
                f"  {result['MB']:6,.0f} MB  built and measured in {built_s:,.0f} s",
                flush=True,
            )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
