"""An index for approximate search in galleries that one exact scan is too slow for, by FAISS.

A folder:

    index.faiss  FAISS's own file, with how hard it searches (efSearch, nprobe) in it
    rows.arrow   path and label of each row, in the index's order; mapped into memory, not read
    index.json   which model embedded the rows, the kind, and the recall that was measured

The gallery is read in batches and never in memory as a whole, but in the index: flat and HNSW hold its
vectors in full, SQ8 a quarter of that. Needs `pip install 'rll_tf[faiss]'`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rll_tf.data import printable
from rll_tf.progress import progress, waiting
from serving.gallery import open_gallery, without_own
from serving.parquet import OF_THE_MODEL, holds_parquet, import_pyarrow, read_batches

INDEX_FILE, ROWS_FILE, METADATA_FILE = "index.faiss", "rows.arrow", "index.json"
# Up to so many rows exact search takes milliseconds; up to so many HNSW, the fastest, fits into memory.
FLAT_ROWS, HNSW_ROWS = 20_000, 1_000_000
# Recall is measured on so many rows of the gallery, each searched for among all others.
QUERIES, TOP = 1000, 10
# FAISS asks for at least 39 vectors to train each cell on, or each value of a byte of a product quantiser.
TRAINED_ON_PER_CELL = 50
CODES = 256

# What reads a gallery, batch by batch.
_Read = Callable[[], Iterator[Mapping[str, np.ndarray]]]


def choose_kind(rows: int) -> str:
    """FAISS's name of the kind of index for so many rows.

    Flat: exact. HNSW: a graph of neighbours. IVF: 8 √rows cells, of which the nearest are searched, and a
    byte in place of each float32.
    """
    if rows <= FLAT_ROWS:
        return "Flat"
    if rows <= HNSW_ROWS:
        return "HNSW32"
    return f"IVF{round(8 * rows**0.5)},SQ8"


def effort_name(kind: str) -> str | None:
    """What says how hard an index of a kind searches; None where nothing does."""
    return "nprobe" if "IVF" in kind else "efSearch" if "HNSW" in kind else None


def build_index(
    gallery: Path, to: Path, *, kind: str | None = None, target_recall: float = 0.95
) -> dict[str, Any]:
    """Write the index of a gallery; it searches as hard as the recall asks for.

    Args:
        gallery: an `.npz` file or a folder of Parquet files that `rll embed` wrote.
        to: a folder that isn't there yet.
        kind: as FAISS's `index_factory` reads it, such as "IVF4096,PQ64"; None: by `choose_kind`.
        target_recall: recall@10 against exact search, from 0 to 1. An index that can't reach it searches as
            hard as it can.

    Returns:
        What index.json says: `rows`, `dim`, `kind`, `effort` (efSearch or nprobe; None: neither),
        `recall@10` on `queries` rows, and which model embedded.

    Raises:
        ValueError: `gallery` is no gallery, `to` exists, or FAISS knows no such kind or needs more rows.
        ImportError: faiss or pyarrow is not installed.
    """
    faiss = import_faiss()
    if to.exists():
        raise ValueError(f"--to must name a folder that isn't there yet; {to} is")
    read = _reader(gallery)
    rows, model, dim = 0, {}, 0
    for batch in read():
        rows += len(batch["embeddings"])
        dim = batch["embeddings"].shape[1]
        model = {name: batch[name].item() for name in OF_THE_MODEL if name in batch}
    if not rows:
        raise ValueError(f"{gallery} must hold embeddings; it holds none")
    kind = kind or choose_kind(rows)
    partial = to.with_name(f"partial-{to.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        index = faiss.index_factory(dim, kind)
        if not index.is_trained:
            with waiting(f"training {kind}"):
                index.train(_sample(read, rows, TRAINED_ON_PER_CELL * max(_cells(index, kind), CODES))[1])
        _add(index, read, rows, partial / ROWS_FILE)
        ids, queries = _sample(read, rows, QUERIES)
        exact = _exact(read, rows, ids, queries, min(TOP, rows - 1))
        effort, recall = _tune(index, kind, ids, queries, exact, target_recall)
        metadata = {
            **model,
            "rows": rows,
            "dim": dim,
            "kind": kind,
            "effort": effort,
            "recall@10": recall,
            "queries": len(ids),
        }
        faiss.write_index(index, str(partial / INDEX_FILE))
        (partial / METADATA_FILE).write_text(json.dumps(metadata, indent=1), encoding="utf-8")
        partial.rename(to)
    except RuntimeError as error:  # FAISS's
        reason = re.split(r"\.cpp:\d+: (?:Error: '.*' failed: )?", str(error))[-1]
        raise ValueError(
            f"FAISS must know the kind of index, and there must be rows enough for it; got {kind!r} and "
            f"{rows:,} rows of {dim} numbers: {reason}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return metadata


def holds_index(folder: Path) -> bool:
    """Whether it is a folder that `build_index` wrote."""
    return (folder / INDEX_FILE).is_file()


class Index:
    """A folder that `build_index` wrote.

    Raises:
        ValueError: it is damaged.
        ImportError: faiss or pyarrow is not installed.

    Attributes:
        metadata: what `build_index` returned.
    """

    def __init__(self, folder: Path) -> None:
        faiss, pa = import_faiss(), import_pyarrow()
        try:
            self.metadata: dict[str, Any] = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
            self._index = faiss.read_index(str(folder / INDEX_FILE))
            self._rows = pa.ipc.open_file(pa.memory_map(str(folder / ROWS_FILE))).read_all()
        except (RuntimeError, ValueError, pa.ArrowException) as error:
            raise ValueError(f"{folder} must be a folder that rll index wrote: {error}") from error

    def search(self, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The nearest rows that the index finds: distances [n, k], class names [n, k], paths [n, k].

        Distances are Euclidean, to vectors as the index holds them: SQ8 and PQ round them.

        Args:
            queries: [n, d] float32.
            top: k, or all rows where there are fewer. An index of cells may find fewer: their distances are
                infinite, their names empty.
        """
        squares, ids = self._index.search(
            np.ascontiguousarray(queries, np.float32), min(top, len(self._rows))
        )
        found = self._rows.take(np.maximum(ids, 0).ravel())
        names, paths = (
            np.where(ids < 0, "", np.array(found[name].to_pylist(), str).reshape(ids.shape))
            for name in ("label", "path")
        )
        return np.where(ids < 0, np.inf, np.sqrt(np.maximum(squares, 0))), names, paths


def import_faiss() -> Any:
    """The package faiss; ImportError that says how to install it."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError("an index needs the package faiss-cpu: pip install 'rll_tf[faiss]'") from error
    return faiss


def _reader(gallery: Path) -> _Read:
    """What reads the gallery as `serving.parquet.read_batches` does, again and again; an `.npz` file once."""
    if holds_parquet(gallery):
        return lambda: read_batches(gallery)
    arrays = open_gallery(gallery)
    arrays["class_names"] = arrays["class_names"][arrays["labels"]]
    return lambda: iter([arrays])


def _numbered(read: _Read) -> Iterator[tuple[int, np.ndarray]]:
    """The index of each batch's first row, and its embeddings."""
    first = 0
    for batch in read():
        yield first, np.ascontiguousarray(batch["embeddings"], np.float32)
        first += len(batch["embeddings"])


def _sample(read: _Read, rows: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many rows, drawn at random with a fixed seed: indices [m] ascending, embeddings [m, d]."""
    drawn = np.sort(np.random.default_rng(0).choice(rows, min(count, rows), replace=False))
    parts = []
    for first, embeddings in _numbered(read):
        here = drawn[np.searchsorted(drawn, first) : np.searchsorted(drawn, first + len(embeddings))]
        parts.append(embeddings[here - first])
    return drawn, np.concatenate(parts)


def _add(index: Any, read: _Read, rows: int, file: Path) -> None:
    """Add every row to the index, and its path and label to the file."""
    pa = import_pyarrow()
    schema = pa.schema({"path": pa.string(), "label": pa.string()})
    with (
        pa.ipc.new_file(str(file), schema) as writer,
        progress(what="adding rows", total=rows) as bar,
    ):
        for batch in read():
            index.add(np.ascontiguousarray(batch["embeddings"], np.float32))
            texts = [list(map(printable, batch[name].tolist())) for name in ("paths", "class_names")]
            writer.write_batch(pa.record_batch([pa.array(text) for text in texts], schema=schema))
            bar.update(len(texts[0]))


def _exact(read: _Read, rows: int, ids: np.ndarray, queries: np.ndarray, top: int) -> np.ndarray:
    """The exact nearest others of each query, whose own row is `ids`: [m, top] indices."""
    faiss = import_faiss()
    best = faiss.ResultHeap(len(queries), top + 1)
    with progress(what="exact search, to compare with", total=rows) as bar:
        for first, embeddings in _numbered(read):
            squares, found = faiss.knn(queries, embeddings, min(top + 1, len(embeddings)))
            best.add_result(squares, found + first)
            bar.update(len(embeddings))
    best.finalize()
    return without_own(best.I, ids)


def _cells(index: Any, kind: str) -> int:
    """How many cells an index has; 0 where it has none."""
    return import_faiss().extract_index_ivf(index).nlist if effort_name(kind) == "nprobe" else 0


def _tune(
    index: Any, kind: str, ids: np.ndarray, queries: np.ndarray, exact: np.ndarray, target: float
) -> tuple[int | None, float]:
    """Let the index search as hard as the target asks for; how hard that is, and the recall."""

    def recall() -> float:
        found = without_own(index.search(queries, exact.shape[1] + 1)[1], ids)
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))

    name, most = effort_name(kind), _cells(index, kind) or min(index.ntotal, 4096)
    if not exact.size or name is None:
        return None, recall() if exact.size else 1.0
    space = import_faiss().ParameterSpace()
    effort = 1 if name == "nprobe" else 16
    with waiting(f"choosing {name}"):
        while True:
            space.set_index_parameter(index, name, effort)
            measured = recall()
            if measured >= target or effort >= most:
                return effort, measured
            effort = min(2 * effort, most)
