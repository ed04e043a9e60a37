"""`rll search`: the nearest pictures of a gallery, by an exported model here or at an endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rll_tf.data import Catalogue, printable
from rll_tf.evaluation import nearest_neighbours
from rll_tf.training import CONCAT
from serving.errors import PictureRejected
from serving.gallery import open_gallery
from serving.index import Index, holds_index
from trainers.embedder import Embedder, name_rejected, open_embedder

# Distances, class names and paths of what is found: [queries, top] each.
Found = tuple[np.ndarray, np.ndarray, np.ndarray]


def search(
    model: Path | None,
    images: Sequence[Path],
    *,
    endpoint: str | None = None,
    model_name: str = "rll_tf",
    gallery_file: Path | None = None,
    top: int = 5,
) -> None:
    """Print each image's nearest pictures: rank, distance, class, path.

    The arguments are those of `rll search --help`; a packed gallery gives no more than it was exported for.

    Raises:
        ValueError: the gallery is not such a file, or was embedded by another model, or there is none.
        CorruptPictureError: an image can't be decoded; it is named.
        EndpointError: a request to the endpoint failed.
    """
    encoded = [image.read_bytes() for image in images]
    gallery = None if gallery_file is None else _open(gallery_file)
    with contextlib.closing(open_embedder(model, endpoint, model_name)) as embedder:
        try:
            if gallery is None:
                packed = embedder.search(encoded)
                found = (packed.distances, packed.class_names, packed.paths)
            else:
                found = _search(embedder, encoded, gallery, gallery_file, top)
        except PictureRejected as error:
            queries = Catalogue("images", tuple(map(str, images)), np.zeros(len(images), np.int64), ("",))
            raise name_rejected(queries, error) from error
    for row, image in enumerate(images):
        print(image)
        for rank, (distance, name, path) in enumerate(zip(*(c[row, :top] for c in found), strict=True), 1):
            print(f"{rank:4d}  {distance:.4f}  {name}  {printable(str(path))}")


class _Exact:
    """The arrays of a gallery, with an index's `metadata` and `search`."""

    def __init__(self, file: Path) -> None:
        self._arrays = open_gallery(file)
        self.metadata = {**self._arrays, "dim": self._arrays["embeddings"].shape[1]}

    def search(self, queries: np.ndarray, top: int) -> Found:
        """See `serving.index.Index`."""
        embeddings = self._arrays["embeddings"]
        ids, distances = nearest_neighbours(queries, min(top, len(embeddings)), gallery=embeddings)
        return distances, self._arrays["class_names"][self._arrays["labels"][ids]], self._arrays["paths"][ids]


def _open(file: Path) -> Index | _Exact:
    return Index(file) if holds_index(file) else _Exact(file)


def _search(
    embedder: Embedder, encoded: Sequence[bytes], gallery: Index | _Exact, file: Path | None, top: int
) -> Found:
    """What a packed gallery would give, from a file or an index."""
    assert file is not None
    embedder.identity.check_embedded(file, gallery.metadata)
    level = str(gallery.metadata["level"])
    queries = embedder.embed(encoded, None if level == CONCAT else level)
    if gallery.metadata["dim"] != queries.shape[1]:
        raise ValueError(
            f"{file} must hold embeddings of this model ({queries.shape[1]} numbers each); "
            f"it holds {gallery.metadata['dim']} numbers each"
        )
    return gallery.search(queries, top)
