"""`rll embed`: a data set's embeddings, from an exported model here or at an endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rll_tf.data import Catalogue, counted, skip_corrupt
from rll_tf.files import replacing
from rll_tf.progress import progress
from rll_tf.training import CONCAT
from serving.errors import PictureRejected
from trainers.data import open_data, select_split
from trainers.embedder import BATCH_SIZE, name_rejected, open_embedder
from trainers.suggestions import suggesting


def embed(
    model: Path | None,
    data: str,
    to: str | Path,
    *,
    endpoint: str | None = None,
    model_name: str = "rll_tf",
    batch_size: int = BATCH_SIZE,
    split: str | None = None,
    level: str | None = None,
    skip: bool = False,
) -> None:
    """Write the embeddings of a data set's pictures to an `.npz` file.

    Arrays: `embeddings` [n, d] float32, `labels` [n] int64, `paths` [n], `class_names` [classes], `level` [],
    and which model embedded: `version` [] int64 (-1: unknown), `weights_sha256` [] (empty: unknown).

    The other arguments are those of `rll embed --help`.

    Raises:
        ValueError: there is no such split or level, or the file's name does not end in .npz.
        CorruptPictureError: a picture can't be read or decoded; it is named.
        EndpointError: a request to the endpoint failed.
    """
    to = Path(to)
    if to.suffix != ".npz":
        raise ValueError(f"--to must name a file that ends in .npz; got {to}")
    catalogue = select_split(open_data(data), split)
    skipped = None
    if skip:
        catalogue, skipped = skip_corrupt(catalogue)
    with contextlib.closing(open_embedder(model, endpoint, model_name, batch_size)) as embedder:
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            with suggesting(embedder.levels, level):
                embeddings = embedder.embed(_encoded(catalogue), level)
        except PictureRejected as error:
            raise name_rejected(catalogue, error) from error
    with replacing(to) as partial:
        np.savez(
            partial,
            embeddings=embeddings,
            labels=catalogue.labels,
            paths=np.array(catalogue.paths),
            class_names=np.array(catalogue.class_names),
            level=np.array(level or CONCAT),
            **embedder.identity.columns(),
        )
    if skipped is not None:
        print("\n".join(skipped.report()))
    print(f"embedded {counted(len(catalogue), 'picture')}: {to}")


def _encoded(catalogue: Catalogue) -> Iterator[bytes]:
    """The pictures' files, one after the other; shows how far it is."""
    for index in progress(range(len(catalogue)), "embedding"):
        yield catalogue.encoded(index)
