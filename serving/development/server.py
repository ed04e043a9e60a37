"""The development server as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from serving.development.batching import Batcher
from serving.development.grpc_service import grpc_server
from serving.development.model import ServedModel
from serving.development.rest import RestServer
from serving.development.versions import Versions

# As much as the client sends.
MAX_BODY_BYTES = 2**28
POLL_S = 1.0
GRACE_S = 5.0


class DevelopmentServer:
    """Serves a folder of versions by REST and gRPC until it is stopped; a context manager.

    Args:
        folder: the folder of versions; new ones are taken up while it runs.
        model_name: what requests call the model.
        host: where to listen; this machine alone unless told otherwise.
        rest_port: 0 takes a free one.
        grpc_port: 0 takes a free one.
        batching: a `BatchingParameters` message, to join requests; None to run each by itself.
        poll_s: seconds between two looks at the folder.
        max_body_bytes: larger requests are refused.
        say: told in a line of every version that is taken up or refused.

    Raises:
        FileNotFoundError: there is no version.
        ValueError: the newest version can't be loaded.
        OSError: a port is taken.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model_name: str = "rll_tf",
        host: str = "127.0.0.1",
        rest_port: int = 0,
        grpc_port: int = 0,
        batching: Any = None,
        poll_s: float = POLL_S,
        max_body_bytes: int = MAX_BODY_BYTES,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.batcher = None if batching is None else Batcher(batching)
        self.versions = Versions(folder, poll_s, say)
        model = ServedModel(model_name, self.versions, self.batcher)
        shown = f"[{host}]" if ":" in host else host
        try:
            try:
                self._rest = RestServer((host, rest_port), model, max_body_bytes)
            except OSError as error:
                raise OSError(f"REST can't listen on {shown}:{rest_port}: {error.strerror}") from error
            try:
                self._grpc, port = grpc_server(f"{shown}:{grpc_port}", model, max_body_bytes)
            except OSError:
                self._rest.server_close()
                raise
        except OSError:
            self.versions.stop()
            raise
        self.url = f"http://{shown}:{self._rest.server_port}"
        self.grpc_url = f"grpc://{shown}:{port}"
        self._thread = threading.Thread(
            target=self._rest.serve_forever, kwargs={"poll_interval": 0.05}, name="rest", daemon=True
        )
        self._thread.start()
        self._grpc.start()

    def stop(self) -> None:
        """Take no more requests, and let those under way end."""
        self._rest.shutdown()
        self._thread.join()
        self._rest.drain(GRACE_S)
        self._rest.server_close()
        self._grpc.stop(GRACE_S).wait()
        self.versions.stop()
        if self.batcher is not None:
            self.batcher.close()

    def __enter__(self) -> DevelopmentServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
