"""An HTTP server on this machine whose responses are scripted."""

import contextlib
import http.server
import json
import threading

HANGING_S = 60


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives the n-th request with the n-th of `server.responses`, and all further ones with the last."""

    protocol_version = "HTTP/1.1"
    timeout = HANGING_S

    def do_POST(self):
        """Remember the request, and respond."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append((self.path, dict(self.headers), json.loads(body) if body else None))
        response = self.server.responses[min(number, len(self.server.responses) - 1)]
        with contextlib.suppress(OSError):  # the client may have given up
            response(self, json.loads(body) if body else None)

    def do_GET(self):
        """The scripted response, but to the question for the version."""
        if self.server.version is None or not self.path.endswith("/metadata"):
            self.do_POST()
            return
        metadata = {"signature_def": {"signature_def": {}}}
        spec = {"name": "m", "version": str(self.server.version)}
        document(200, {"model_spec": spec, "metadata": metadata})(self, None)

    def log_message(self, *_):
        """Stay quiet."""


def document(status, content, **headers):
    """A response with this status and body; what is not bytes is sent as JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    def response(handler, _):
        handler.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            handler.send_header(name.replace("_", "-"), str(value))
        handler.end_headers()
        handler.wfile.write(body)

    return response


def embedding_of(text):
    """The embedding of a picture: two numbers."""
    return [len(text), sum(text.encode()) % 97]


def embeddings(handler, request):
    """A right response, in which pictures differ."""
    rows = [embedding_of(picture["b64"]) for picture in request["inputs"]["images"]]
    document(200, {"outputs": rows})(handler, request)


def break_off(handler, _):
    """The connection ends without a response."""
    handler.close_connection = True


def half(handler, request):
    """The connection ends within the response."""
    document(200, {"outputs": [[1, 2]]}, Content_Length=1000)(handler, request)
    handler.close_connection = True


def hang(handler, _):
    """No response, until the test ends."""
    handler.server.ended.wait(HANGING_S)
    handler.close_connection = True


def trickle(handler, _):
    """A response of spaces that never ends."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000000")
    handler.end_headers()
    while not handler.server.ended.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


@contextlib.contextmanager
def scripted(*responses, version=5):
    """A server with these responses: its `url`, and the `requests` that came (path, headers, JSON).

    It tells its version, and these questions are not among the requests, unless `version` is None.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = False, True
    server.responses, server.requests, server.version = responses, [], version
    server.lock, server.ended = threading.Lock(), threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
