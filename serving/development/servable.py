"""One version of a model, loaded and run the way the C++ server does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.development.refusal import FAILED_PRECONDITION, INVALID_ARGUMENT, RefusalError
from serving.development.tensors import from_proto

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MOST_WARMUP_RECORDS = 1000
DEFAULT_SIGNATURE = "serving_default"
# Others, such as the initialisation's, are not there to be asked.
METHODS = {f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress")}


class Servable:
    """A SavedModel in a session: its signatures' tensors are fed and fetched by name.

    Args:
        folder: the version's folder.
        version: its number.

    Raises:
        tf.errors.OpError, OSError, ValueError: there is no whole SavedModel, or a warm-up request fails.
    """

    def __init__(self, folder: Path, version: int) -> None:
        self.version = version
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default():
                meta = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(folder))
            self.signatures: dict[str, Any] = dict(meta.signature_def)
            self.warmed_up_requests = self._warm_up(folder / WARMUP_FILE)
        except Exception:
            self._session.close()
            raise

    def signature(self, name: str) -> Any:
        """The signature of this name, `serving_default` where it is empty.

        Raises:
            RefusalError: there is none.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            known = ", ".join(sorted(name for name in self.signatures if not name.startswith("__")))
            raise RefusalError(
                FAILED_PRECONDITION, f'Serving signature key "{name}" not found; there are: {known}'
            )
        return self.signatures[name]

    def run(
        self, signature_name: str, inputs: Mapping[str, np.ndarray], wanted: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Run a signature.

        Args:
            signature_name: empty for `serving_default`.
            inputs: input name -> value; strings as objects.
            wanted: names of the outputs, each once; all of them where it is empty.

        Raises:
            RefusalError: the inputs are not the signature's, or the graph refuses them.
        """
        signature = self.signature(signature_name)
        if signature.method_name not in METHODS:
            raise RefusalError(
                INVALID_ARGUMENT,
                f"Expected prediction signature method_name to be one of {', '.join(sorted(METHODS))}. "
                f"Was: {signature.method_name or 'none'}",
            )
        _check_inputs(signature, inputs)
        unknown = sorted(set(wanted) - set(signature.outputs))
        if unknown:
            raise RefusalError(
                INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {', '.join(unknown)}; "
                f"there are: {', '.join(sorted(signature.outputs))}",
            )
        if len(set(wanted)) < len(wanted):
            raise RefusalError(INVALID_ARGUMENT, f"duplicate output tensor alias in: {', '.join(wanted)}")
        names = list(wanted) or list(signature.outputs)
        feeds = {signature.inputs[name].name: value for name, value in inputs.items()}
        try:
            values = self._session.run([signature.outputs[name].name for name in names], feeds)
        except tf.errors.OpError as error:
            raise RefusalError.of(error) from error
        return dict(zip(names, values, strict=True))

    def _warm_up(self, file: Path) -> int:
        """Replay the recorded predict requests, as the C++ server does before it answers others."""
        if not file.is_file():
            return 0
        count = 0
        for record in tf.data.TFRecordDataset(str(file)).take(MOST_WARMUP_RECORDS).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.WhichOneof("log_type") != "predict_log":
                raise ValueError(f"{file} must hold predict requests; record {count} is none")
            request = log.predict_log.request
            inputs = {name: from_proto(value) for name, value in request.inputs.items()}
            try:
                self.run(request.model_spec.signature_name, inputs)
            except RefusalError as refusal:
                raise ValueError(f"warm-up request {count} failed: {refusal.message}") from refusal
            count += 1
        return count


def _check_inputs(signature: Any, inputs: Mapping[str, np.ndarray]) -> None:
    extra, missing = set(inputs) - set(signature.inputs), set(signature.inputs) - set(inputs)
    if extra or missing:
        raise RefusalError(
            INVALID_ARGUMENT,
            f"input size does not match signature: {len(inputs)}!={len(signature.inputs)}. "
            f"Sent extra: {{{','.join(sorted(extra))}}}. "
            f"Missing but required: {{{','.join(sorted(missing))}}}.",
        )
    for name, value in inputs.items():
        info = signature.inputs[name]
        dtype, shape = tf.dtypes.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)
        given = tf.dtypes.as_dtype(value.dtype)
        if given != dtype:
            raise RefusalError(INVALID_ARGUMENT, f"input {name} must be {dtype.name}; got {given.name}")
        if not shape.is_compatible_with(value.shape):
            raise RefusalError(
                INVALID_ARGUMENT, f"input {name} must have shape {shape}; got {tf.TensorShape(value.shape)}"
            )
