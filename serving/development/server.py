"""The development server as a whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from serving.development.access_log import AccessLog
from serving.development.grpc_service import grpc_server
from serving.development.model import ServedModel
from serving.development.rest import RestServer
from serving.development.versions import Versions

# As much as the client sends.
MAX_BODY_BYTES = 2**28
POLL_S = 1.0
GRACE_S = 5.0


@contextlib.contextmanager
def development_server(
    folder: Path,
    model_name: str,
    host: str,
    rest_port: int,
    grpc_port: int,
    log: Callable[[str], None],
    *,
    logs_all: bool = False,
    has_page: bool = False,
) -> Iterator[None]:
    """Serve a folder of versions by REST and gRPC while this lasts; requests under way end first.

    Args:
        folder: the folder of versions; new ones are loaded meanwhile.
        model_name: the model's name in requests.
        host: where to listen.
        rest_port: for REST.
        grpc_port: for gRPC.
        log: is called with a line for every version that is loaded, rejected or unloaded, and for every
            request that is refused.
        logs_all: log every other request too.
        has_page: show a page at `/` to try the model with.

    Raises:
        FileNotFoundError: there is no version.
        ValueError: none of the versions can be loaded.
        OSError: a port is taken.
    """
    with contextlib.ExitStack() as stack:
        versions = Versions(folder, POLL_S, log)
        stack.callback(versions.stop)
        model = ServedModel(model_name, versions)
        address = f"[{host}]:{grpc_port}" if ":" in host else f"{host}:{grpc_port}"
        access_log = AccessLog(log, logs_all)
        grpc = grpc_server(address, model, MAX_BODY_BYTES, access_log)
        rest = RestServer((host, rest_port), model, MAX_BODY_BYTES, access_log, has_page)
        grpc.start()
        stack.callback(lambda: grpc.stop(GRACE_S).wait())
        rest.start()
        stack.callback(rest.stop)
        yield
