"""`rll search`: the nearest pictures of a gallery, by an exported model here or at an endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rll_tf.data import Catalogue, printable
from rll_tf.evaluation import nearest_neighbours
from rll_tf.training import CONCAT
from serving.client import SearchResult
from serving.errors import PictureRejected
from serving.gallery import open_gallery
from trainers.embedder import Embedder, name_rejected, open_embedder


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
    gallery = None if gallery_file is None else open_gallery(gallery_file)
    with contextlib.closing(open_embedder(model, endpoint, model_name)) as embedder:
        try:
            if gallery is None:
                found = embedder.search(encoded)
            else:
                found = _search_file(embedder, encoded, gallery, gallery_file, top)
        except PictureRejected as error:
            queries = Catalogue("images", tuple(map(str, images)), np.zeros(len(images), np.int64), ("",))
            raise name_rejected(queries, error) from error
    for row, image in enumerate(images):
        print(image)
        columns = (values[row, :top] for values in (found.distances, found.class_names, found.paths))
        for rank, (distance, name, path) in enumerate(zip(*columns, strict=True), 1):
            print(f"{rank:4d}  {distance:.4f}  {name}  {printable(str(path))}")


def _search_file(
    embedder: Embedder,
    encoded: Sequence[bytes],
    gallery: Mapping[str, np.ndarray],
    file: Path | None,
    top: int,
) -> SearchResult:
    """What a packed gallery would give, from the arrays of a file."""
    assert file is not None
    embedder.identity.check_embedded(file, gallery)
    level = str(gallery["level"])
    queries = embedder.embed(encoded, None if level == CONCAT else level)
    embeddings = gallery["embeddings"]
    if embeddings.shape[1] != queries.shape[1]:
        raise ValueError(
            f"{file} must hold embeddings of this model ({queries.shape[1]} numbers each); "
            f"it holds {embeddings.shape[1]} numbers each"
        )
    ids, distances = nearest_neighbours(queries, min(top, len(embeddings)), gallery=embeddings)
    labels = gallery["labels"][ids]
    return SearchResult(ids, labels, distances, gallery["paths"][ids], gallery["class_names"][labels])
