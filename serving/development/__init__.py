"""A development server that speaks TensorFlow Serving's REST and gRPC calls, for tests and laptops.

It serves one model: predict, metadata and status, with the responses and statuses of
`tensorflow_model_server` but for what docs/serving.md lists. It is written in Python, runs each request by
itself (no batching), has no authentication and no monitoring, and listens on this machine unless given
another host: not for production.
"""

from serving.development.server import development_server

__all__ = ["development_server"]
