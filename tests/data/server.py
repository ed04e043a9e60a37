"""A small file server on this machine that misbehaves as real mirrors do."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content` by path, in the manner that `server.manner` names."""

    def do_GET(self) -> None:
        """Send the file, or what follows the first byte of the range."""
        server = self.server
        range_ = self.headers.get("Range")
        server.ranges.append(range_)
        content = server.content.get(self.path)
        if content is None:
            self.send_error(404)
            return
        first = 0
        if range_ and server.manner != "no ranges":
            first = int(range_.removeprefix("bytes=").rstrip("-"))
            if first >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
        else:
            self.send_response(200)
        body = content[first:]
        if content.startswith(b"<!DOCTYPE html"):
            self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.manner == "interrupts":
            body = body[: server.allowance]
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@contextlib.contextmanager
def serving(content: dict[str, bytes], manner: str = "", allowance: int = 0) -> Iterator[object]:
    """Serve these files; the server knows its `url` and which `ranges` were requested."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.manner, server.allowance, server.ranges = content, manner, allowance, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
