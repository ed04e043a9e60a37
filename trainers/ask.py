"""`rll embed` and `rll search`: answers from an exported model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
from rll_tf.evaluation import nearest_neighbours
from rll_tf.training import CONCAT
from rll_tf.training.files import replacing
from serving.artefact import Artefact, refusal
from serving.gallery import open_gallery

BATCH_SIZE = 64


def embed(model: Path, data: str, split: str | None, to: Path, level: str | None, skip: bool = False) -> None:
    """Write the embeddings of a data set's pictures to an `.npz` file.

    Arrays: `embeddings` [n, d] float32, `labels` [n] int64, `paths` [n], `class_names` [classes], `level` [].

    Raises:
        ValueError: there is no such split or level, or the file's name does not end in .npz.
        CorruptPictureError: a picture can't be read or decoded; it is named.
    """
    if to.suffix != ".npz":
        raise ValueError(f"--to must name a file that ends in .npz; got {to}")
    catalogue = open_dataset(data).select(split)
    skipped = None
    if skip:
        catalogue, skipped = skip_corrupt(catalogue)
    artefact = Artefact(model)
    to.parent.mkdir(parents=True, exist_ok=True)
    progress = keras.utils.Progbar(len(catalogue), verbose=int(sys.stdout.isatty()), unit_name="picture")
    batches = []
    try:
        for first in range(0, len(catalogue), BATCH_SIZE):
            indices = range(first, min(first + BATCH_SIZE, len(catalogue)))
            batches.append(artefact.embed([catalogue.encoded(index) for index in indices], level))
            progress.update(indices.stop)
    except tf.errors.InvalidArgumentError as error:
        named = name_corrupt(catalogue, error)
        if named is error:  # every picture decodes: one is beyond the artefact's limits
            named = _name_refused(catalogue, artefact, level)
        raise named from error
    with replacing(to) as partial:
        np.savez(
            partial,
            embeddings=np.concatenate(batches),
            labels=catalogue.labels,
            paths=np.array(catalogue.paths),
            class_names=np.array(catalogue.class_names),
            level=np.array(level or CONCAT),
        )
    if skipped is not None:
        print("\n".join(skipped.report()))
    print(f"embedded {len(catalogue)} pictures: {to}")


def _name_refused(catalogue: Catalogue, artefact: Artefact, level: str | None) -> ValueError:
    for index, path in enumerate(catalogue.paths):
        try:
            artefact.embed([catalogue.encoded(index)], level)
        except tf.errors.InvalidArgumentError as error:
            return ValueError(f"{printable(path)}: {refusal(error)}")
    return ValueError("a request was refused, but every picture of it alone is answered")


def search(model: Path, images: Sequence[Path], gallery_file: Path, top: int) -> None:
    """Print each image's nearest pictures of a gallery that `embed` wrote: rank, distance, class, path.

    Raises:
        ValueError: the gallery is not such a file, or was embedded by another model.
        CorruptPictureError: an image can't be decoded; it is named.
    """
    encoded = [image.read_bytes() for image in images]
    gallery = open_gallery(gallery_file)
    artefact = Artefact(model)
    level = str(gallery["level"])
    queries = []
    for image, content in zip(images, encoded, strict=True):
        try:
            queries.append(artefact.embed([content], None if level == CONCAT else level)[0])
        except tf.errors.InvalidArgumentError as error:
            if "must have at most" in refusal(error):
                raise ValueError(f"{image}: {refusal(error)}") from error
            raise CorruptPictureError(f"{image} is not a whole picture that TensorFlow can decode") from error
    embeddings = gallery["embeddings"]
    if embeddings.shape[1] != len(queries[0]):
        raise ValueError(
            f"{gallery_file} must hold embeddings of this model ({len(queries[0])} numbers each); "
            f"it holds {embeddings.shape[1]} numbers each"
        )
    indices, distances = nearest_neighbours(np.stack(queries), min(top, len(embeddings)), gallery=embeddings)
    for image, row, row_distances in zip(images, indices, distances, strict=True):
        print(image)
        for rank, (index, distance) in enumerate(zip(row, row_distances, strict=True), 1):
            name = gallery["class_names"][gallery["labels"][index]]
            print(f"{rank:4d}  {distance:.4f}  {name}  {printable(str(gallery['paths'][index]))}")
