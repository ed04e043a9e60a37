"""What embeds and searches for a command: an exported folder in this process, or an endpoint."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from rll_tf.data import Catalogue, name_corrupt, printable
from serving.artefact import Artefact
from serving.client import EmbeddingClient, EndpointError, PictureError, RequestError, SearchResult
from serving.errors import PictureRejected
from serving.export import WEIGHTS_SHA256
from serving.gallery import Identity
from serving.signatures import DEFAULT, PIXELS, SEARCH

BATCH_SIZE = 64
# Where a picture may be why a request is rejected.
BAD_REQUEST = {400, 413, "INVALID_ARGUMENT"}


class Embedder(Protocol):
    """Pictures in, arrays out; `close` it after use.

    A picture that can't be decoded, or is beyond the model's limits, raises `PictureRejected`.
    """

    @property
    def levels(self) -> Sequence[str]:
        """The levels that it embeds at."""

    @property
    def identity(self) -> Identity:
        """Which model embeds; it stays the same."""

    def embed(self, pictures: Iterable[bytes], level: str | None = None) -> np.ndarray:
        """[n, d] float32 of one level, or of all levels concatenated; ValueError for an unknown level."""

    def search(self, pictures: Iterable[bytes]) -> SearchResult:
        """The nearest pictures of the gallery that is packed into the model; ValueError if there is none."""

    def close(self) -> None:
        """Release what is open."""


class FolderEmbedder:
    """An exported folder, loaded in this process.

    Raises:
        FileNotFoundError, ValueError: it holds no exported model.

    Attributes:
        artefact: the version that embeds.
    """

    def __init__(self, folder: Path) -> None:
        self.artefact = Artefact(folder)
        if not self.artefact.is_verified:
            print(f"{self.artefact.folder} has no manifest (an older export): its files are not verified")

    @property
    def levels(self) -> Sequence[str]:
        """See `Embedder`."""
        return list(self.artefact.levels)

    @property
    def identity(self) -> Identity:
        """See `Embedder`."""
        number = self.artefact.folder.name
        version = int(number) if number.isdigit() else None
        return Identity(version, self.artefact.metadata.get(WEIGHTS_SHA256))

    def embed(self, pictures: Iterable[bytes], level: str | None = None) -> np.ndarray:
        """See `Embedder`."""
        parts = []
        for first, batch in _batches(pictures):
            try:
                parts.append(self.artefact.embed(batch, level))
            except PictureRejected as error:
                index = None if error.index is None else first + error.index
                raise PictureRejected(index, error.reason) from error
        return np.concatenate(parts)

    def search(self, pictures: Iterable[bytes]) -> SearchResult:
        """See `Embedder`."""
        return self.artefact.search(list(pictures))

    def close(self) -> None:
        """See `Embedder`."""


class EndpointEmbedder:
    """An endpoint, by REST or gRPC as its address says.

    Args:
        url: its address.
        model_name: the model's name there.
        batch_size: most pictures in a request; the model may have been exported for fewer.

    Raises:
        EndpointError: it can't be reached, or does not serve the model.
    """

    def __init__(self, url: str, model_name: str, batch_size: int = BATCH_SIZE) -> None:
        with EmbeddingClient(url, model_name) as client:
            version = client.current_version()
        self.identity = Identity(version)
        # From here on this one: another one's embeddings can't be compared with its own.
        self._client = EmbeddingClient(url, model_name, version=version, batch_size=batch_size)
        try:
            self._signatures = {name for name in self._client.metadata() if not name.startswith("__")}
        except EndpointError:
            self._client.close()
            raise

    @property
    def levels(self) -> Sequence[str]:
        """See `Embedder`."""
        return sorted(self._signatures - {DEFAULT, PIXELS, SEARCH})

    def embed(self, pictures: Iterable[bytes], level: str | None = None) -> np.ndarray:
        """See `Embedder`."""
        if level is not None and level not in self.levels:
            raise ValueError(f"{self._client.url} has no level {level!r}; it has: {', '.join(self.levels)}")
        with _rejections():
            return self._client.embed(pictures, level)

    def search(self, pictures: Iterable[bytes]) -> SearchResult:
        """See `Embedder`."""
        if SEARCH not in self._signatures:
            raise ValueError(f"{self._client.url} has no gallery packed into it; give --gallery FILE.npz")
        with _rejections():
            return self._client.search(pictures)

    def close(self) -> None:
        """See `Embedder`."""
        self._client.close()


def open_embedder(
    model: Path | None, endpoint: str | None, model_name: str, batch_size: int = BATCH_SIZE
) -> Embedder:
    """Open whichever of the two is given; only an endpoint needs a name and a batch size."""
    if endpoint is not None:
        return EndpointEmbedder(endpoint, model_name, batch_size)
    assert model is not None
    return FolderEmbedder(model)


def name_rejected(catalogue: Catalogue, error: PictureRejected) -> Exception:
    """The error with the path of the picture that was rejected; `error` itself where none is at fault."""
    # A server that joins the requests of several clients may name a picture of another one.
    if error.index is None or error.index >= len(catalogue):
        return name_corrupt(catalogue, error)
    named = name_corrupt(catalogue.take(np.array([error.index])), error)
    if named is not error:
        return named
    return ValueError(f"{printable(catalogue.paths[error.index])}: {error.reason}")


def _batches(pictures: Iterable[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """The index of each batch's first picture, and the batch."""
    source = iter(pictures)
    first = 0
    while batch := list(itertools.islice(source, BATCH_SIZE)):
        yield first, batch
        first += len(batch)


@contextlib.contextmanager
def _rejections() -> Iterator[None]:
    """Raise the client's errors as the artefact does."""
    try:
        yield
    except (RequestError, PictureError) as error:
        if isinstance(error, RequestError) and error.index is None:
            if error.status not in BAD_REQUEST:  # such as a proxy's that wants a password
                raise
            raise PictureRejected(None, f"{error.endpoint}: {error.reason}") from error
        raise PictureRejected(error.index, error.reason) from error
