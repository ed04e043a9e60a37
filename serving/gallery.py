"""A gallery that `rll embed` wrote."""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from serving.parquet import holds_parquet, read_folder


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which exported model embeds, or has embedded.

    Args:
        version: its number in its folder or at its endpoint; None where it has none, or nobody wrote it down.
        weights_sha256: of its weights and preprocessing, the same in every export of one model; None where
            it is not known, as an endpoint does not say.
    """

    version: int | None = None
    weights_sha256: str | None = None

    def columns(self) -> dict[str, Any]:
        """What `rll embed` writes of it, and `of` reads: -1 and an empty string where it is unknown."""
        version = -1 if self.version is None else self.version
        return {"version": version, "weights_sha256": self.weights_sha256 or ""}

    @classmethod
    def of(cls, gallery: Mapping[str, Any]) -> Identity:
        """Of the model that embedded a gallery; files of before have neither."""
        version = int(gallery.get("version", -1))
        return cls(None if version < 0 else version, str(gallery.get("weights_sha256", "")) or None)

    def check_embedded(self, file: Path, gallery: Mapping[str, Any]) -> None:
        """Raise ValueError where another model has embedded a gallery: the distances would mean nothing.

        Weights decide where both are known, else version numbers; where neither is, nothing is checked.
        """
        found = Identity.of(gallery)
        for name, wanted, other in (
            ("weights of SHA-256", self.weights_sha256, found.weights_sha256),
            ("version", self.version, found.version),
        ):
            if wanted is not None and other is not None:
                if wanted != other:
                    raise ValueError(
                        f"{file} must hold embeddings of this model, {name} {wanted}; "
                        f"it holds those of {name} {other}: run rll embed again"
                    )
                return


def is_gallery(path: Path) -> bool:
    """Whether it has the form of what `rll embed` writes: an `.npz` file or a folder of Parquet files."""
    return path.suffix == ".npz" or holds_parquet(path)


def open_gallery(file: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, or of a folder of Parquet files, that `rll embed` wrote, checked.

    Returns:
        `embeddings` [n, d], `labels` [n] integers that index `class_names`, `paths` [n], `class_names`
        [classes] and `level` [], the name of the embedding, `"concat"` for all levels side by side; and
        what `Identity.of` reads.

    Raises:
        ValueError: it is not such a file, or is damaged.
        OSError: it can't be read.
    """
    wanted = ("embeddings", "labels", "paths", "class_names", "level")
    gallery = read_folder(file) if holds_parquet(file) else _read_file(file)
    missing = [name for name in wanted if name not in gallery]
    if missing:
        raise ValueError(f"{file} must hold the arrays {', '.join(wanted)}; {', '.join(missing)} is missing")
    parts = [gallery[name] for name in ("embeddings", "labels", "paths")]
    embeddings, labels, _ = parts
    if (
        [part.ndim for part in parts] != [2, 1, 1]
        or len({len(part) for part in parts}) > 1
        or not labels.size
    ):
        shapes = ", ".join(f"{name} {gallery[name].shape}" for name in ("embeddings", "labels", "paths"))
        raise ValueError(f"{file} must hold [n, d] embeddings, n labels and n paths; it holds {shapes}")
    if embeddings.dtype.kind not in "fiu" or not np.isfinite(embeddings).all():
        raise ValueError(
            f"{file} must hold embeddings of finite numbers; it holds {embeddings.dtype}, not all finite"
        )
    for name in ("paths", "class_names"):
        if gallery[name].ndim != 1 or gallery[name].dtype.kind != "U":
            found = f"{gallery[name].shape} {gallery[name].dtype}"
            raise ValueError(f"{file} must hold a list of strings as {name}; it holds {found}")
    if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < gallery["class_names"].size:
        raise ValueError(f"{file} must hold labels that index its {gallery['class_names'].size} class_names")
    return gallery


def without_own(found: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """What was found of each of a gallery's rows but the row itself: [m, k + 1] -> [m, k].

    Without the last where the row is not among them, as where a duplicate took its place.
    """
    others = found != ids[:, np.newaxis]
    others[others.all(axis=1), -1] = False
    return found[others].reshape(len(ids), -1)


def _read_file(file: Path) -> dict[str, np.ndarray]:
    if file.is_dir():
        raise ValueError(f"a gallery must be an .npz file or a folder of Parquet files; {file} holds none")
    try:
        with file.open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise ValueError("it is no archive of arrays, or is not whole")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{file} must be a file that rll embed wrote: {error}") from error
