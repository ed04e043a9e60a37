"""`rll embed` and `rll search`: answers from an exported model, here or at an endpoint."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from rll_tf.data import (
    Catalogue,
    CorruptPictureError,
    name_corrupt,
    open_dataset,
    printable,
    skip_corrupt,
)
from rll_tf.data.images import decode
from rll_tf.evaluation import nearest_neighbours
from rll_tf.files import replacing
from rll_tf.training import CONCAT
from serving.client import SearchResult
from serving.gallery import open_gallery
from trainers.answerers import Answerer, RefusedError

# How an artefact words that a picture is beyond its limits.
LIMIT = "must have at most"


def embed(
    answering: Callable[[], Answerer],
    data: str,
    split: str | None,
    to: Path,
    level: str | None,
    skip: bool = False,
) -> None:
    """Write the embeddings of a data set's pictures to an `.npz` file.

    Arrays: `embeddings` [n, d] float32, `labels` [n] int64, `paths` [n], `class_names` [classes], `level` [].

    Args:
        answering: opens what answers, once the cheap checks have passed.
        data: a SPEC.
        split: only this split of it.
        to: the file.
        level: one level's embedding; None for all, concatenated.
        skip: leave out pictures that can't be decoded.

    Raises:
        ValueError: there is no such split or level, or the file's name does not end in .npz.
        CorruptPictureError: a picture can't be read or decoded; it is named.
        EndpointError: the endpoint does not answer.
    """
    if to.suffix != ".npz":
        raise ValueError(f"--to must name a file that ends in .npz; got {to}")
    catalogue = open_dataset(data).select(split)
    skipped = None
    if skip:
        catalogue, skipped = skip_corrupt(catalogue)
    with answering() as answerer:
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            embeddings = answerer.embed(_encoded(catalogue), level)
        except RefusedError as error:
            named = name_corrupt(catalogue, error)
            if named is error:  # every picture decodes: one is beyond the model's limits
                named = _name_refused(catalogue, answerer, level) or error
            raise named from error
    with replacing(to) as partial:
        np.savez(
            partial,
            embeddings=embeddings,
            labels=catalogue.labels,
            paths=np.array(catalogue.paths),
            class_names=np.array(catalogue.class_names),
            level=np.array(level or CONCAT),
        )
    if skipped is not None:
        print("\n".join(skipped.report()))
    print(f"embedded {len(catalogue)} pictures: {to}")


def _encoded(catalogue: Catalogue) -> Iterator[bytes]:
    """The pictures' files, one after the other; shows how far it is."""
    progress = keras.utils.Progbar(len(catalogue), verbose=int(sys.stdout.isatty()), unit_name="picture")
    for index in range(len(catalogue)):
        yield catalogue.encoded(index)
        progress.update(index + 1)


def _name_refused(catalogue: Catalogue, answerer: Answerer, level: str | None) -> ValueError | None:
    for index, path in enumerate(catalogue.paths):
        try:
            answerer.embed([catalogue.encoded(index)], level)
        except RefusedError as error:
            return ValueError(f"{printable(path)}: {error}")
    return None


def search(
    answering: Callable[[], Answerer], images: Sequence[Path], gallery_file: Path | None, top: int
) -> None:
    """Print each image's nearest pictures: rank, distance, class, path.

    Args:
        answering: opens what answers, once the cheap checks have passed.
        images: the queries.
        gallery_file: what `embed` wrote; None for the gallery that is packed into the model.
        top: how many to print; a packed gallery gives no more than it was exported for.

    Raises:
        ValueError: the gallery is not such a file, or was embedded by another model, or there is none.
        CorruptPictureError: an image can't be decoded; it is named.
        EndpointError: the endpoint does not answer.
    """
    encoded = [image.read_bytes() for image in images]
    gallery = None if gallery_file is None else open_gallery(gallery_file)
    with answering() as answerer:
        for image, content in zip(images, encoded, strict=True):
            try:
                if gallery is None:
                    found = answerer.search([content])
                else:
                    level = str(gallery["level"])
                    query = answerer.embed([content], None if level == CONCAT else level)
                    found = _nearest(query, gallery, gallery_file, top)
            except RefusedError as error:
                raise _named(image, content, error) from error
            print(image)
            columns = (found.distances[0], found.class_names[0], found.paths[0])
            rows = itertools.islice(zip(*columns, strict=True), top)
            for rank, (distance, name, path) in enumerate(rows, 1):
                print(f"{rank:4d}  {distance:.4f}  {name}  {printable(str(path))}")


def _nearest(
    queries: np.ndarray, gallery: Mapping[str, np.ndarray], file: Path | None, top: int
) -> SearchResult:
    """What a packed gallery would answer, from the arrays of a file."""
    embeddings = gallery["embeddings"]
    if embeddings.shape[1] != queries.shape[1]:
        raise ValueError(
            f"{file} must hold embeddings of this model ({queries.shape[1]} numbers each); "
            f"it holds {embeddings.shape[1]} numbers each"
        )
    ids, distances = nearest_neighbours(queries, min(top, len(embeddings)), gallery=embeddings)
    labels = gallery["labels"][ids]
    return SearchResult(ids, labels, distances, gallery["paths"][ids], gallery["class_names"][labels])


def _named(image: Path, content: bytes, error: RefusedError) -> ValueError:
    if LIMIT not in str(error):  # such a picture must not be decoded here either
        try:
            decode(content)
        except tf.errors.InvalidArgumentError:
            return CorruptPictureError(f"{image} is not a whole picture that TensorFlow can decode")
    return ValueError(f"{image}: {error}")
