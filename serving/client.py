"""A client of the embedding endpoint: pictures out, numpy arrays in.

    from serving.client import EmbeddingClient

    with EmbeddingClient("http://localhost:8501") as client:
        embeddings = client.embed([picture_bytes, other_bytes])  # [2, d] float32

This file stands alone: it needs numpy and urllib3, neither TensorFlow nor the rest of this project, and may
be copied. It calls TensorFlow Serving, or any server with its REST API.

gRPC (`grpc://host:8500`) is an extra, `pip install rll_tf[serving]`, imported only when such an address is
given. It uses the official stubs, and their package, `tensorflow-serving-api`, needs TensorFlow's message
modules, hence TensorFlow: a client that must stay small uses REST.
"""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import email.utils
import itertools
import json
import math
import random
import re
import time
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

# urllib3 rather than requests or httpx: its pool is safe to share between threads (requests' Session is
# not), it is already wherever requests is, and it leaves retries and deadlines to the rules below.
import urllib3

__all__ = ["DeadlineError", "EmbeddingClient", "EndpointError", "PictureError", "RequestError",
           "SearchResult", "UnavailableError"]  # fmt: skip

DEFAULT_SIGNATURE, PIXELS_SIGNATURE, SEARCH_SIGNATURE = "serving_default", "pixels", "search"
# gRPC's default limit is 4 MB; a batch of photographs has more.
GRPC_MESSAGE_BYTES = 2**28
# What fits into such a message in base64, with room for the rest: a BMP of 64 million pixels does.
PICTURE_BYTES = GRPC_MESSAGE_BYTES * 3 // 4 - 2**16
BACKOFF_S, LONGEST_BACKOFF_S = 0.1, 5.0
# gRPC connects on its own: the longest pause before it tries again, and how long it tries.
RECONNECT_S, CONNECT_S = 1.0, 5.0
# How long a request that keeps failing is sent again where the call has no deadline.
PATIENCE_S = 120.0
# How often a server is asked for its status or metadata: whoever asks wants to know what is wrong.
QUESTIONS = 4
# What TensorFlow Serving is started with here (its default is 30), and how much later its word may come.
SERVER_TIMEOUT_S, LEEWAY_S = 60, 5
# HTTP's statuses and gRPC's codes. Of a server, or a proxy before it, that is overloaded or away for a while:
RETRIED = {429, 502, 503, "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
# Of one that ran out of its own time.
LATE = {408, 504, "DEADLINE_EXCEEDED"}
REJECTED = {
    *range(400, 500), "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE",
    "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED",
}  # fmt: skip
# gRPC has RESOURCE_EXHAUSTED for this too, which no later attempt changes.
TOO_LONG = "message larger than max"
# How much is shown of a response that is none.
SHOWN_CHARACTERS = 200
_CHUNK_BYTES = 2**16
# The outputs that hold strings; all others hold numbers.
_STRINGS = {"paths", "class_names"}

T = TypeVar("T")
R = TypeVar("R")
# A version's number or label; None for the server's current one.
Version = int | str | None
# The first picture's index, and the inputs by name.
_Batch = tuple[int, Mapping[str, Any]]


class EndpointError(OSError):
    """A request to the endpoint failed.

    Attributes:
        endpoint: its address.
        message: the endpoint's own words, or what went wrong on the way to it.
        status: the HTTP status or the name of gRPC's code; None where there was no response.
    """

    def __init__(self, endpoint: str, message: str, status: int | str | None = None) -> None:
        super().__init__(f"{endpoint}: {message}" + ("" if status is None else f" (status {status})"))
        self.endpoint, self.message, self.status = endpoint, message, status


class RequestError(EndpointError):
    """The endpoint rejects the request (4xx, INVALID_ARGUMENT), and would reject it again.

    Attributes:
        index: of the picture that the model rejects, in what was passed in; None where the endpoint names
            none. A server that joins requests of several clients may name another client's picture.
        reason: what must hold, and what was received, without the index.
    """

    def __init__(self, endpoint: str, message: str, status: int | str | None = None) -> None:
        super().__init__(endpoint, message, status)
        self.index, self.reason = parse_rejection(message)


class UnavailableError(EndpointError):
    """The endpoint can't be reached, or is overloaded, after every retry.

    Attributes:
        retry_after_s: what the endpoint asked to wait before the next attempt.
    """

    retry_after_s = 0.0


class DeadlineError(EndpointError, TimeoutError):
    """No response came in time, after every retry."""


class PictureError(ValueError):
    """A picture is empty or larger than a request may be, and was not sent.

    Attributes:
        index: the picture's, in what was passed in.
        reason: what must hold, and what was received.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"picture {index} {reason}")
        self.index, self.reason = index, reason


def parse_rejection(message: str) -> tuple[int | None, str]:
    """The index of the picture that an exported model rejects, and the reason, from TensorFlow's message.

    The model's own checks name the picture, "assertion failed: [images[3] must …]", as `serving/guard.py`
    writes it. A decoder does not: the index is None, and the reason is its last line.
    """
    assertion = re.search(r"assertion failed: \[(.*)\]", message)
    lines = [line.strip() for line in message.splitlines()]
    lines = [line for line in lines if line and not line.startswith("[[")]  # [[…]] names the graph's node
    reason = assertion[1] if assertion else (lines or [message])[-1]
    picture = re.fullmatch(r"images\[(\d+)\] (.*)", reason, re.DOTALL)
    return (int(picture[1]), picture[2]) if picture else (None, reason)


@dataclasses.dataclass(frozen=True, eq=False)
class SearchResult:
    """The K nearest pictures of the gallery that is packed into the model, nearest first.

    Args:
        ids: [n, K] int64, rows of the gallery.
        labels: [n, K] int64.
        distances: [n, K] float32, Euclidean.
        paths: [n, K] strings.
        class_names: [n, K] strings.
    """

    ids: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    paths: np.ndarray
    class_names: np.ndarray


class EmbeddingClient:
    """A client of one model of one endpoint; may be shared between threads, and is a context manager.

    Pictures go in batches, several at a time, and embeddings come in the pictures' order. A request that
    fails on the way (no or a broken connection, 502), meets an overloaded server (429, 503,
    RESOURCE_EXHAUSTED, UNAVAILABLE), or gets no response in time (504, DEADLINE_EXCEEDED) is sent again
    after a growing, random pause, and not before the response's Retry-After, until the call's deadline. That
    is safe, since predict is idempotent: it changes nothing on the server. What the server rejects (other
    4xx) or sends malformed (a proxy's page, half a document) is not tried again.

    Args:
        url: `http://host:8501`, `https://…` (a path before `/v1` is kept), `grpc://host:8500` or `grpcs://…`.
        model_name: the model's name on the server.
        version: use this version, a number or a label; None for the server's current one. A call of several
            requests asks for the number first and sends all of them to it, so that its rows are of one
            version though another comes meanwhile; the server must keep the old one loaded, as `rll serve`
            and our configuration do.
        batch_size: most pictures in a request.
        batch_bytes: most bytes of pictures in a request; a larger one is sent alone, up to 201 MB.
        concurrency: most requests under way.
        deadline_s: for a whole call such as `embed`, with all its batches and retries; None for no limit,
            but for two minutes to a request that keeps failing.
        attempt_deadline_s: for one attempt at one request; by default a little more than the server's own
            time-out.
        attempts: how often a request is sent at most; None for as often as the deadline allows.
        headers: sent along with each request, such as a proxy's authorisation.

    Raises:
        ValueError: an argument is out of its range.
        ImportError: the address is gRPC's, and the extra is not installed.
    """

    def __init__(
        self,
        url: str,
        model_name: str = "rll_tf",
        *,
        version: Version = None,
        batch_size: int = 64,
        batch_bytes: int = 2**24,
        concurrency: int = 4,
        deadline_s: float | None = None,
        attempt_deadline_s: float = SERVER_TIMEOUT_S + LEEWAY_S,
        attempts: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        for name, value in {"batch_size": batch_size, "batch_bytes": batch_bytes,
                            "concurrency": concurrency, "attempts": attempts}.items():  # fmt: skip
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        for name, seconds in {"deadline_s": deadline_s, "attempt_deadline_s": attempt_deadline_s}.items():
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{name} must be above 0; got {seconds}")
        if not model_name or set(model_name) & set("/:"):
            raise ValueError(f"model_name must be a name without / and :; got {model_name!r}")
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https", "grpc", "grpcs"} or not parts.hostname:
            raise ValueError(f"an endpoint must be http://HOST:PORT or grpc://HOST:PORT; got {url!r}")
        self.url, self.model_name, self.version = url, model_name, version
        self._batch_size, self._batch_bytes, self._concurrency = batch_size, batch_bytes, concurrency
        self._deadline_s, self._attempt_s, self._attempts = deadline_s, attempt_deadline_s, attempts
        self._patience_s = PATIENCE_S if deadline_s is None else math.inf
        transport: type[_Rest] | type[_Grpc] = _Rest if parts.scheme.startswith("http") else _Grpc
        self._transport = transport(url, model_name, dict(headers or {}), concurrency)
        self._pool = concurrent.futures.ThreadPoolExecutor(concurrency, thread_name_prefix="endpoint")

    def embed(self, pictures: Iterable[bytes], level: str | None = None) -> np.ndarray:
        """Embed picture files' bytes: [n, d] float32 of one level, or of all levels concatenated.

        Args:
            pictures: the files' contents; drawn as requests are sent, so a generator need not hold them all.
            level: `low`, `mid` or `high`.

        Raises:
            ValueError: there are no pictures.
            PictureError: one is empty or too large for a request.
            TypeError: one is not bytes.
            RequestError: the endpoint rejects a picture, or has no such level.
            UnavailableError, DeadlineError: see the classes.
            EndpointError: the response is malformed.
        """
        return self._embeddings(level or DEFAULT_SIGNATURE, self._picture_batches(pictures))

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embed decoded pictures, [n, s, s, 3] uint8 RGB, resized to the model's own s: [n, d] float32.

        Raises:
            ValueError: the array has another shape or dtype.
            RequestError, UnavailableError, DeadlineError, EndpointError: as in `embed`.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3 or not len(pixels):
            raise ValueError(
                "pixels must be [n, h, w, 3] uint8 with n at least 1; "
                f"got {list(pixels.shape)} {pixels.dtype}"
            )
        rows = max(1, min(self._batch_size, self._batch_bytes // pixels[0].nbytes))
        starts = range(0, len(pixels), rows)
        batches = ((first, {"pixels": pixels[first : first + rows]}) for first in starts)
        return self._embeddings(PIXELS_SIGNATURE, batches)

    def search(self, pictures: Iterable[bytes]) -> SearchResult:
        """The nearest pictures of the model's own gallery, for each of these.

        Raises:
            RequestError: the model has no gallery, or rejects a picture.
            ValueError, TypeError, UnavailableError, DeadlineError, EndpointError: as in `embed`.
        """
        names = [field.name for field in dataclasses.fields(SearchResult)]
        batches = self._predictions(SEARCH_SIGNATURE, self._picture_batches(pictures), names)
        columns = {name: np.concatenate([batch[name] for batch in batches]) for name in names}
        for name, dtype in (("ids", np.int64), ("labels", np.int64), ("distances", np.float32)):
            columns[name] = columns[name].astype(dtype)
        return SearchResult(**columns)

    def status(self) -> dict[int, tuple[str, str]]:
        """Version -> its state (`AVAILABLE`, `LOADING`, `END`…) and the message of what went wrong, if so."""
        return self._ask(self._transport.status)

    def is_ready(self) -> bool:
        """Whether a version is available; False also where the endpoint can't be reached."""
        try:
            return any(state == "AVAILABLE" for state, _ in self.status().values())
        except EndpointError:
            return False

    def metadata(self) -> dict[str, Any]:
        """The signatures, in the form of TensorFlow Serving's REST API: name -> inputs, outputs, method."""
        return self._ask(self._transport.metadata)[1]

    def current_version(self) -> int:
        """The number of the version that responds now; where the client was given a number, that one."""
        return self._ask(self._transport.metadata)[0]

    def close(self) -> None:
        """End the threads and connections; calls under way end first."""
        self._pool.shutdown(cancel_futures=True)
        self._transport.close()

    def __enter__(self) -> EmbeddingClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, question: Callable[[Version, float], R]) -> R:
        return self._retried(
            lambda seconds: question(self.version, seconds), self._deadline(), self._attempts or QUESTIONS
        )

    def _embeddings(self, signature: str, batches: Iterable[_Batch]) -> np.ndarray:
        outputs = self._predictions(signature, batches, ["embedding"])
        return np.concatenate([batch["embedding"] for batch in outputs]).astype(np.float32)

    def _picture_batches(self, pictures: Iterable[bytes]) -> Iterator[_Batch]:
        """Batches within both limits, in order; a picture above `batch_bytes` is a batch by itself."""
        if isinstance(pictures, bytes | str):
            raise TypeError("pictures must be a sequence of files' bytes; got a single one")
        batch: list[bytes] = []
        first = size = 0
        for index, picture in enumerate(pictures):
            _check_picture(index, picture)
            if batch and (len(batch) == self._batch_size or size + len(picture) > self._batch_bytes):
                yield first, {"images": batch}
                batch, first, size = [], index, 0
            batch.append(picture)
            size += len(picture)
        if not batch:
            raise ValueError("there must be at least 1 picture; got none")
        yield first, {"images": batch}

    def _predictions(
        self, signature: str, batches: Iterable[_Batch], names: list[str]
    ) -> list[dict[str, np.ndarray]]:
        deadline, batches = self._deadline(), iter(batches)
        first_batches, version = list(itertools.islice(batches, 2)), self.version
        if len(first_batches) == 2 and not isinstance(version, int):
            version, _ = self._retried(
                lambda seconds: self._transport.metadata(self.version, seconds), deadline, self._attempts
            )

        def predict(batch: _Batch) -> dict[str, np.ndarray]:
            first, inputs = batch
            (rows,) = {len(value) for value in inputs.values()}

            def attempt(seconds: float) -> dict[str, np.ndarray]:
                outputs = self._transport.predict(version, signature, inputs, names, seconds)
                _check_outputs(self.url, outputs, names, rows)
                return outputs

            try:
                return self._retried(attempt, deadline, self._attempts)
            except RequestError as error:
                if error.index is not None:  # beyond the request's own pictures it is another client's
                    error.index = first + error.index if error.index < rows else None
                raise

        return list(self._in_order(predict, itertools.chain(first_batches, batches), deadline))

    def _in_order(self, call: Callable[[T], R], values: Iterator[T], deadline: float) -> Iterator[R]:
        """The calls' results in the values' order; never more than `concurrency` values are under way."""
        waiting: deque[concurrent.futures.Future[R]] = deque()
        try:
            for value in itertools.islice(values, self._concurrency):
                waiting.append(self._pool.submit(call, value))
            while waiting:
                left_s = None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())
                try:
                    result = waiting[0].result(left_s)
                except concurrent.futures.TimeoutError as error:
                    if isinstance(error, EndpointError):  # a TimeoutError too, and the caller's own
                        raise
                    raise self._late() from None
                waiting.popleft()
                for value in itertools.islice(values, 1):
                    waiting.append(self._pool.submit(call, value))
                yield result
        finally:
            for future in waiting:
                future.cancel()

    def _deadline(self) -> float:
        return math.inf if self._deadline_s is None else time.monotonic() + self._deadline_s

    def _retried(self, attempt: Callable[[float], R], deadline: float, attempts: int | None) -> R:
        """Call with the seconds that an attempt has, again and again while that may help."""
        for number in itertools.count(1):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise self._late()
            try:
                return attempt(min(self._attempt_s, left_s))
            except (UnavailableError, DeadlineError) as error:
                if number == 1:
                    deadline = min(deadline, time.monotonic() + self._patience_s)
                # Full jitter: callers that failed together do not come back together.
                pause_s = random.uniform(0, min(LONGEST_BACKOFF_S, BACKOFF_S * 2**number))
                if isinstance(error, UnavailableError):
                    pause_s += error.retry_after_s
                if number == attempts or time.monotonic() + pause_s >= deadline:
                    raise
            time.sleep(pause_s)
        raise AssertionError("unreachable")

    def _late(self) -> DeadlineError:
        return DeadlineError(self.url, f"no response within {self._deadline_s or self._patience_s} s")


class _Rest:
    """Attempts by REST; each method's last argument is the seconds it may take."""

    def __init__(self, url: str, model_name: str, headers: dict[str, str], concurrency: int) -> None:
        # Of one host: a PoolManager closes its connections only when it is collected.
        self._pool = urllib3.connection_from_url(url, maxsize=concurrency)
        self._url = url
        self._headers = {**headers, "Content-Type": "application/json"}
        base = urllib.parse.urlsplit(url).path.rstrip("/")
        self._model = f"{base}/v1/models/{urllib.parse.quote(model_name)}"

    def predict(
        self, version: Version, signature: str, inputs: Mapping[str, Any], names: list[str], seconds: float
    ) -> dict[str, np.ndarray]:
        columns = {name: _json_column(value) for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode("ascii")
        response = self._call("POST", f"{_suffix(version)}:predict", body, seconds)
        if not isinstance(response, dict) or "outputs" not in response:
            raise self._malformed("the response must hold 'outputs'; got", response)
        outputs = response["outputs"]
        # A single output comes without its name.
        columns = outputs if isinstance(outputs, dict) else {names[0]: outputs}
        try:
            return {name: np.array(columns[name]) for name in names if name in columns}
        except ValueError as error:
            raise self._malformed("the response's rows must be equally long:", error) from error

    def status(self, version: Version, seconds: float) -> dict[int, tuple[str, str]]:
        response = self._call("GET", _suffix(version), None, seconds)
        try:
            return {
                int(row["version"]): (str(row["state"]), str(row["status"]["error_message"]))
                for row in response["model_version_status"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise self._malformed("no status of a model:", response) from error

    def metadata(self, version: Version, seconds: float) -> tuple[int, dict[str, Any]]:
        response = self._call("GET", f"{_suffix(version)}/metadata", None, seconds)
        try:
            signatures = dict(response["metadata"]["signature_def"]["signature_def"])
            return int(response["model_spec"]["version"]), signatures
        except (KeyError, TypeError, ValueError) as error:
            raise self._malformed("no metadata of a model:", response) from error

    def close(self) -> None:
        self._pool.close()

    def _malformed(self, rule: str, found: object) -> EndpointError:
        return EndpointError(self._url, f"{rule} {str(found)[:SHOWN_CHARACTERS]}")

    def _call(self, method: str, suffix: str, body: bytes | None, seconds: float) -> Any:
        status, content, retry_after = self._exchange(method, self._model + suffix, body, seconds)
        try:
            # Strings that are not UTF-8, such as some files' names, come as Python's own file names do.
            response = json.loads(content.decode("utf-8", "surrogateescape"))
        except ValueError:
            response = None
        if status == 200 and response is not None:
            return response
        message = response.get("error") if isinstance(response, dict) else None
        if not message:
            shown = content[:SHOWN_CHARACTERS].decode("utf-8", "replace")
            message = f"the response to {self._model}{suffix} must be JSON; got {shown!r}"
        error = _error(self._url, str(message), status)
        if isinstance(error, UnavailableError):
            error.retry_after_s = _seconds_until(retry_after)
        raise error

    def _exchange(self, method: str, path: str, body: bytes | None, seconds: float) -> tuple[int, bytes, str]:
        """One request: the status, body and Retry-After of its response, which ends in time even in drops."""
        end = time.monotonic() + seconds
        late = f"no whole response within {seconds:.3g} s"
        try:
            response = self._pool.request(
                method,
                path,
                body=body,
                headers=self._headers,
                timeout=urllib3.Timeout(total=seconds),
                preload_content=False,
                retries=False,
                redirect=False,
            )
            chunks = []
            try:
                while chunk := response.read1(_CHUNK_BYTES):
                    chunks.append(chunk)
                    if time.monotonic() > end:
                        raise DeadlineError(self._url, late)
            except BaseException:
                response.close()  # what is left of the response must not be taken for the next one's
                raise
            response.release_conn()
        except urllib3.exceptions.NewConnectionError as error:
            raise UnavailableError(self._url, f"it can't be reached: {error}") from error
        except urllib3.exceptions.TimeoutError as error:
            raise DeadlineError(self._url, late) from error
        except urllib3.exceptions.HTTPError as error:
            raise UnavailableError(self._url, f"the connection broke: {error}") from error
        return response.status, b"".join(chunks), response.headers.get("Retry-After", "")


class _Grpc:
    """The same by gRPC."""

    def __init__(self, url: str, model_name: str, headers: dict[str, str], concurrency: int) -> None:
        try:
            import grpc
            import tensorflow as tf
            from tensorflow_serving import apis
            from tensorflow_serving.apis import (  # noqa: F401  they become attributes of apis
                get_model_metadata_pb2,
                get_model_status_pb2,
                model_service_pb2_grpc,
                predict_pb2,
                prediction_service_pb2_grpc,
            )
        except ImportError as error:
            raise ImportError(f"gRPC needs the extra: pip install rll_tf[serving] ({error})") from error
        parts = urllib.parse.urlsplit(url)
        options = [
            ("grpc.max_send_message_length", GRPC_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", GRPC_MESSAGE_BYTES),
            ("grpc.enable_retries", 0),  # the client's own rule retries, within its deadlines
            ("grpc.lb_policy_name", "round_robin"),  # where a name has several addresses
            # A channel that failed rejects calls at once until it has tried again: let it try soon.
            ("grpc.initial_reconnect_backoff_ms", int(1000 * BACKOFF_S)),
            ("grpc.max_reconnect_backoff_ms", int(1000 * RECONNECT_S)),
            # Despite its name, what a slow link has to connect in.
            ("grpc.min_reconnect_backoff_ms", int(1000 * CONNECT_S)),
        ]
        if parts.scheme == "grpcs":
            self._channel = grpc.secure_channel(parts.netloc, grpc.ssl_channel_credentials(), options)
        else:
            self._channel = grpc.insecure_channel(parts.netloc, options)
        self._url, self._apis, self._tf, self._error = url, apis, tf, grpc.RpcError
        self._model_name = model_name
        self._headers = [(name.lower(), value) for name, value in headers.items()]
        self._predictions = apis.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = apis.model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(
        self, version: Version, signature: str, inputs: Mapping[str, Any], names: list[str], seconds: float
    ) -> dict[str, np.ndarray]:
        request = self._spec(self._apis.predict_pb2.PredictRequest(), version)
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            dtype = None if isinstance(value, np.ndarray) else self._tf.string
            request.inputs[name].CopyFrom(self._tf.make_tensor_proto(value, dtype))
        response = self._call(self._predictions.Predict, request, seconds)
        return {name: self._array(response.outputs[name]) for name in names if name in response.outputs}

    def status(self, version: Version, seconds: float) -> dict[int, tuple[str, str]]:
        messages = self._apis.get_model_status_pb2
        request = self._spec(messages.GetModelStatusRequest(), version)
        response = self._call(self._models.GetModelStatus, request, seconds)
        name_of = messages.ModelVersionStatus.State.Name
        return {
            row.version: (name_of(row.state), row.status.error_message)
            for row in response.model_version_status
        }

    def metadata(self, version: Version, seconds: float) -> tuple[int, dict[str, Any]]:
        from google.protobuf import json_format

        messages = self._apis.get_model_metadata_pb2
        request = self._spec(messages.GetModelMetadataRequest(metadata_field=["signature_def"]), version)
        response = self._call(self._predictions.GetModelMetadata, request, seconds)
        signatures = messages.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        document = json_format.MessageToDict(
            signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return response.model_spec.version.value, document["signature_def"]

    def close(self) -> None:
        self._channel.close()

    def _array(self, tensor: Any) -> np.ndarray:
        try:
            values = self._tf.make_ndarray(tensor)
        except (TypeError, ValueError) as error:
            raise EndpointError(self._url, f"a response's tensor must be whole: {error}") from error
        if values.dtype != object:
            return values
        texts = [content.decode("utf-8", "surrogateescape") for content in values.flat]
        return np.array(texts, str).reshape(values.shape)

    def _spec(self, request: Any, version: Version) -> Any:
        request.model_spec.name = self._model_name
        if isinstance(version, str):
            request.model_spec.version_label = version
        elif version is not None:
            request.model_spec.version.value = version
        return request

    def _call(self, method: Callable[..., Any], request: Any, seconds: float) -> Any:
        try:
            return method(request, timeout=seconds, metadata=self._headers)
        except self._error as error:
            raise _error(self._url, error.details() or "no response", error.code().name) from error


def _suffix(version: Version) -> str:
    """Of a model's path."""
    if isinstance(version, str):
        return f"/labels/{urllib.parse.quote(version, safe='')}"
    return "" if version is None else f"/versions/{version}"


def _seconds_until(retry_after: str) -> float:
    """What a Retry-After says, a number of seconds or a date; 0 where it says neither."""
    try:
        when = email.utils.parsedate_to_datetime(retry_after)
        return max(0.0, when.timestamp() - time.time())
    except ValueError:
        return float(retry_after) if retry_after.isdecimal() else 0.0


def _error(url: str, message: str, status: int | str) -> EndpointError:
    if TOO_LONG in message:
        return RequestError(url, message, status)
    for kind, statuses in ((UnavailableError, RETRIED), (DeadlineError, LATE), (RequestError, REJECTED)):
        if status in statuses:
            return kind(url, message, status)
    return EndpointError(url, message, status)


def _check_picture(index: int, picture: bytes) -> None:
    if not isinstance(picture, bytes):
        raise TypeError(f"picture {index} must be bytes; got {type(picture).__name__}")
    if not picture:
        raise PictureError(index, "must have at least 1 byte; it has none")
    if len(picture) > PICTURE_BYTES:
        raise PictureError(index, f"must have at most {PICTURE_BYTES} bytes; it has {len(picture)}")


def _check_outputs(url: str, outputs: Mapping[str, np.ndarray], names: list[str], rows: int) -> None:
    missing = [name for name in names if name not in outputs]
    if missing:
        message = f"the response must hold {', '.join(names)}; {', '.join(missing)} is missing"
        raise EndpointError(url, message)
    for name, value in outputs.items():
        if value.ndim != 2 or len(value) != rows:
            message = f"{name} must have {rows} rows, one per picture; its shape is {list(value.shape)}"
            raise EndpointError(url, message)
        kinds, described = ("U", "strings") if name in _STRINGS else ("fi", "numbers")
        if value.dtype.kind not in kinds:
            raise EndpointError(url, f"{name} must hold {described}; it holds {value.dtype}")


def _json_column(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [{"b64": base64.b64encode(content).decode("ascii")} for content in value]
