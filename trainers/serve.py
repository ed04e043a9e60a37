"""`rll serve`: serve an exported model."""

from __future__ import annotations

from serving.serve import Service
from serving.serve import serve as run


def serve(service: Service) -> None:
    """Serve by REST and gRPC until Ctrl-C.

    Raises:
        OSError: the server ended with an error.
    """
    status = run(service)
    if status != 0:
        raise OSError(f"the server ended with status {status}")
