"""The development server as a whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
        folder: the folder of versions; new ones are loaded while it runs.
        model_name: the model's name in requests.
        host: where to listen; by default on this machine alone.
        rest_port: 0 takes a free one.
        grpc_port: 0 takes a free one.
        log: is called with a line for every version that is loaded or rejected.

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
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        shown = f"[{host}]" if ":" in host else host
        self._versions = Versions(folder, POLL_S, log)
        model = ServedModel(model_name, self._versions)
        try:
            self._grpc, port = grpc_server(f"{shown}:{grpc_port}", model, MAX_BODY_BYTES)
            try:
                self._rest = RestServer((host, rest_port), model, MAX_BODY_BYTES)
            except OSError as error:
                raise OSError(f"REST can't listen on {shown}:{rest_port}: {error.strerror}") from error
        except OSError:
            self._versions.stop()
            raise
        self.url = f"http://{shown}:{self._rest.server_port}"
        self.grpc_url = f"grpc://{shown}:{port}"
        self._grpc.start()
        self._rest.start()

    def stop(self) -> None:
        """Accept no more requests, and let those under way end."""
        self._rest.stop()
        self._grpc.stop(GRACE_S).wait()
        self._versions.stop()

    def __enter__(self) -> DevelopmentServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
