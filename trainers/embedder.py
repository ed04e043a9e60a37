"""What embeds and searches for a command: an exported folder in this process, or an endpoint."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import tensorflow as tf

from rll_tf.data import Catalogue, name_corrupt, printable
from serving.artefact import Artefact, refusal
from serving.client import EmbeddingClient, EndpointError, PictureError, RequestError, SearchResult
from serving.errors import PictureRejected

BATCH_SIZE = 64
Result = TypeVar("Result")
# Signatures that are not levels.
NOT_LEVELS = {"serving_default", "pixels", "search"}


class Embedder(Protocol):
    """Pictures in, arrays out; `close` it after use."""

    @property
    def levels(self) -> Sequence[str]:
        """The levels that it embeds at."""

    def embed(self, pictures: Iterable[bytes], level: str | None = None) -> np.ndarray:
        """[n, d] float32 of one level, or of all levels concatenated.

        Raises:
            ValueError: there is no such level.
            PictureRejected: a picture can't be decoded or is beyond the model's limits.
        """

    def search(self, pictures: Iterable[bytes]) -> SearchResult:
        """The nearest pictures of the gallery that is packed into the model.

        Raises:
            ValueError: there is none.
            PictureRejected: a picture can't be decoded or is beyond the model's limits.
        """

    def close(self) -> None:
        """Release what is open."""


class FolderEmbedder:
    """An exported folder, loaded in this process.

    Raises:
        FileNotFoundError, ValueError: it holds no exported model.
    """

    def __init__(self, folder: Path) -> None:
        self._artefact = Artefact(folder)

    @property
    def levels(self) -> Sequence[str]:
        """See `Embedder`."""
        return list(self._artefact.levels)

    def embed(self, pictures: Iterable[bytes], level: str | None = None) -> np.ndarray:
        """See `Embedder`."""
        parts = []
        for first, batch in _batches(pictures):
            try:
                parts.append(_rejecting(lambda pictures: self._artefact.embed(pictures, level), batch))
            except PictureRejected as error:
                index = None if error.index is None else first + error.index
                raise PictureRejected(index, error.reason) from error
        return np.concatenate(parts)

    def search(self, pictures: Iterable[bytes]) -> SearchResult:
        """See `Embedder`."""
        return _rejecting(self._artefact.search, list(pictures))

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
        self._client = EmbeddingClient(url, model_name, batch_size=batch_size)
        try:
            self._signatures = {name for name in self._client.metadata() if not name.startswith("__")}
        except EndpointError:
            self._client.close()
            raise

    @property
    def levels(self) -> Sequence[str]:
        """See `Embedder`."""
        return sorted(self._signatures - NOT_LEVELS)

    def embed(self, pictures: Iterable[bytes], level: str | None = None) -> np.ndarray:
        """See `Embedder`."""
        if level is not None and level not in self.levels:
            raise ValueError(f"{self._client.url} has no level {level!r}; it has: {', '.join(self.levels)}")
        try:
            return self._client.embed(pictures, level)
        except (RequestError, PictureError) as error:
            raise _rejection(error) from error

    def search(self, pictures: Iterable[bytes]) -> SearchResult:
        """See `Embedder`."""
        if "search" not in self._signatures:
            raise ValueError(f"{self._client.url} has no gallery packed into it; give --gallery FILE.npz")
        try:
            return self._client.search(pictures)
        except (RequestError, PictureError) as error:
            raise _rejection(error) from error

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
    if error.index is None:
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


def _rejection(error: RequestError | PictureError) -> PictureRejected:
    return PictureRejected(getattr(error, "index", None), getattr(error, "reason", str(error)))


def _rejecting(run: Callable[[list[bytes]], Result], pictures: list[bytes]) -> Result:
    """Run the artefact on these pictures; its error becomes a `PictureRejected`."""
    try:
        return run(pictures)
    except tf.errors.InvalidArgumentError as error:
        if len(pictures) == 1:
            raise PictureRejected(0, refusal(error)) from error
        for index, picture in enumerate(pictures):  # a decoder does not know which picture it decodes
            try:
                _rejecting(run, [picture])
            except PictureRejected as rejected:
                raise PictureRejected(index, rejected.reason) from error
        raise PictureRejected(None, refusal(error)) from error
