"""A development server that speaks TensorFlow Serving's REST and gRPC calls, for tests and laptops.

It takes the same requests (but compressed ones), gives the same answers and refuses with the same statuses as
`tensorflow_model_server` does for one model: predict, metadata and status. It is written in Python, has no
authentication and no monitoring, and is bound to this machine unless told otherwise: not for production.
"""

from serving.development.server import DevelopmentServer

__all__ = ["DevelopmentServer"]
