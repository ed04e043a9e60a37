"""Embeddings as a folder of Parquet files, the form of collections too large for one `.npz` file.

    embedding       fixed_size_list<float32>[d]
    label           string: the class's name
    path            string; bytes that are not UTF-8 stand as in `rll_tf.data.printable`
    level           string: which embedding; "concat" for all levels side by side
    version         int64: the exported model's number; -1: unknown
    weights_sha256  string: of the exported model; empty: unknown

Rows are in no order. The last three are the same in every row, and take no room.
Needs `pip install 'rll_tf[parquet]'`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow

COLUMNS = ("embedding", "label", "path", "level", "version", "weights_sha256")
# What one model wrote has one value in these.
OF_THE_MODEL = ("level", "version", "weights_sha256")


def import_pyarrow() -> Any:
    """The package pyarrow, with what reads Parquet; ImportError that says how to install it."""
    try:
        import pyarrow.parquet  # which imports pyarrow
    except ImportError as error:
        raise ImportError("Parquet needs the package pyarrow: pip install 'rll_tf[parquet]'") from error
    return pyarrow


def schema(dim: int) -> pyarrow.Schema:
    """Of a folder of embeddings of `dim` numbers each."""
    pa = import_pyarrow()
    text = pa.string()
    types = (pa.list_(pa.float32(), dim), text, text, text, pa.int64(), text)
    return pa.schema([pa.field(*field, nullable=False) for field in zip(COLUMNS, types, strict=True)])


def holds_parquet(folder: Path) -> bool:
    """Whether it is a folder of Parquet files."""
    return any(folder.glob("*.parquet"))


def read_batches(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """A folder's rows, some thousands at a time, so that any number of them can be read.

    Returns:
        `embeddings` [n, d] float32, `class_names` [n] and `paths` [n], the names of each row; `level`,
        `version` and `weights_sha256` [].

    Raises:
        ValueError: a file is no such Parquet file, or the rows are not of one model and level.
        ImportError: pyarrow is not installed.
    """
    pa = import_pyarrow()
    model: dict[str, Any] = {}
    for file in sorted(folder.glob("*.parquet")):
        try:
            with pa.parquet.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(columns=list(COLUMNS)):
                    arrays = _arrays(file, batch)
                    constants = {name: batch.column(name).unique().to_pylist() for name in OF_THE_MODEL}
                    constants["dimension"] = [arrays["embeddings"].shape[1]]
                    for name, values in constants.items():
                        each = {*values, model.setdefault(name, values[0])}
                        if len(each) > 1:
                            raise ValueError(
                                f"{folder} must hold the embeddings of one model; "
                                f"{name} is {', '.join(sorted(map(str, each)))}"
                            )
                    yield {**arrays, **{name: np.array(model[name]) for name in OF_THE_MODEL}}
        except (pa.ArrowException, KeyError) as error:
            raise ValueError(f"{file} must be a file that rll embed wrote: {error}") from error


def read_folder(folder: Path) -> dict[str, np.ndarray]:
    """All of a folder's rows, as `serving.gallery.open_gallery` gives them; classes by name."""
    batches = list(read_batches(folder))
    if not batches:
        raise ValueError(f"{folder} must hold Parquet files with embeddings; they hold no row")
    names, labels = np.unique(
        np.concatenate([batch["class_names"] for batch in batches]), return_inverse=True
    )
    return {
        "embeddings": np.concatenate([batch["embeddings"] for batch in batches]),
        "labels": labels.astype(np.int64),
        "paths": np.concatenate([batch["paths"] for batch in batches]),
        "class_names": names,
        **{name: batches[0][name] for name in OF_THE_MODEL},
    }


def _arrays(file: Path, batch: pyarrow.RecordBatch) -> dict[str, np.ndarray]:
    missing = [name for name in COLUMNS if name not in batch.schema.names]
    if missing:
        raise ValueError(
            f"{file} must have the columns {', '.join(COLUMNS)}; {', '.join(missing)} is missing"
        )
    dim = getattr(batch.schema.field("embedding").type, "list_size", None)
    if dim is None:
        raise ValueError(f"{file} must hold embeddings as lists of a fixed size; got {batch.schema}")
    columns: Mapping[str, Any] = {name: batch.column(name) for name in COLUMNS}
    flat = columns["embedding"].flatten().to_numpy()
    return {
        "embeddings": flat.astype(np.float32, copy=False).reshape(-1, dim),
        "class_names": np.array(columns["label"].to_pylist(), str),
        "paths": np.array(columns["path"].to_pylist(), str),
    }
