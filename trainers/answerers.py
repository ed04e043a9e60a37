"""Who answers `rll embed` and `rll search`: an exported folder in this process, or an endpoint."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from serving.artefact import Artefact
from serving.client import EmbeddingClient, EndpointError, PictureError, RequestError, SearchResult
from serving.errors import PictureRejected

BATCH_SIZE = 64
# Signatures that are not levels.
OTHERS = {"serving_default", "pixels", "search"}


class RefusedError(ValueError):
    """The model, or the way to it, refuses a picture; the message is theirs."""


class Answerer(Protocol):
    """Pictures in, arrays out; a context manager."""

    def embed(self, pictures: Iterable[bytes], level: str | None = None) -> np.ndarray:
        """[n, d] float32 of one level, or of all levels concatenated.

        Raises:
            ValueError: there is no such level.
            RefusedError: the model refuses a picture.
        """

    def search(self, pictures: Iterable[bytes]) -> SearchResult:
        """The nearest pictures of the gallery that is packed into the model.

        Raises:
            ValueError: there is none.
            RefusedError: the model refuses a picture.
        """

    def __enter__(self) -> Answerer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class FolderAnswerer:
    """An exported folder, loaded in this process."""

    def __init__(self, folder: Path) -> None:
        self._artefact = Artefact(folder)

    def embed(self, pictures: Iterable[bytes], level: str | None = None) -> np.ndarray:
        """See `Answerer`."""
        source = iter(pictures)
        batches = []
        while batch := list(itertools.islice(source, BATCH_SIZE)):
            try:
                batches.append(self._artefact.embed(batch, level))
            except PictureRejected as error:
                raise RefusedError(str(error)) from error
        return np.concatenate(batches)

    def search(self, pictures: Iterable[bytes]) -> SearchResult:
        """See `Answerer`."""
        try:
            return self._artefact.search(list(pictures))
        except PictureRejected as error:
            raise RefusedError(str(error)) from error

    def __enter__(self) -> FolderAnswerer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is held open."""


class EndpointAnswerer:
    """An endpoint, asked by REST or gRPC as its address says.

    Args:
        url: its address.
        model_name: what it calls the model.
        batch_size: most pictures in a request; it may have been exported for fewer.

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

    def embed(self, pictures: Iterable[bytes], level: str | None = None) -> np.ndarray:
        """See `Answerer`."""
        levels = self._signatures - OTHERS
        if level is not None and level not in levels:
            raise ValueError(
                f"{self._client.url} has no level {level!r}; it has: {', '.join(sorted(levels))}"
            )
        try:
            return self._client.embed(pictures, level)
        except (RequestError, PictureError) as error:
            raise _refused(error) from error

    def search(self, pictures: Iterable[bytes]) -> SearchResult:
        """See `Answerer`."""
        if "search" not in self._signatures:
            raise ValueError(f"{self._client.url} has no gallery packed into it; give --gallery FILE.npz")
        try:
            return self._client.search(pictures)
        except (RequestError, PictureError) as error:
            raise _refused(error) from error

    def __enter__(self) -> EndpointAnswerer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()


def _refused(error: RequestError | PictureError) -> RefusedError:
    return RefusedError(str(PictureRejected(error.index, error.reason)))


def answerer(
    model: Path | None, endpoint: str | None, model_name: str, batch_size: int = BATCH_SIZE
) -> Answerer:
    """Open whichever of the two is given; only an endpoint needs a name and a batch size."""
    if endpoint is not None:
        return EndpointAnswerer(endpoint, model_name, batch_size)
    assert model is not None
    return FolderAnswerer(model)
