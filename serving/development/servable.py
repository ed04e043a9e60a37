"""One version of a model, loaded and run the way the C++ server does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.client import DEFAULT_SIGNATURE
from serving.development.errors import FAILED_PRECONDITION, StatusError, invalid
from serving.development.tensors import from_proto
from serving.warmup import WARMUP_FILE

# Signatures of other methods, such as the initialisation, can't be called.
METHOD = "tensorflow/serving/predict"


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
            self.warmup_requests = self._warm_up(folder / WARMUP_FILE)
        except Exception:
            self._session.close()
            raise

    def signature(self, name: str) -> Any:
        """The signature of this name, `serving_default` where it is empty.

        Raises:
            StatusError: there is none.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            known = ", ".join(sorted(name for name in self.signatures if not name.startswith("__")))
            raise StatusError(
                FAILED_PRECONDITION, f'Serving signature key "{name}" not found; there are: {known}'
            )
        return self.signatures[name]

    def run(
        self, signature: Any, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Run a signature.

        Args:
            signature: one of this servable's.
            inputs: input name -> value; strings as objects.
            outputs: names of the outputs; empty for all of them.

        Raises:
            StatusError: the inputs are not the signature's, or the graph rejects them.
        """
        if signature.method_name != METHOD:
            raise invalid(f"a signature's method must be {METHOD}; got {signature.method_name or 'none'}")
        _check_inputs(signature, inputs)
        names = list(outputs) or list(signature.outputs)
        unknown = sorted(set(names) - set(signature.outputs))
        if unknown:
            raise invalid(f"output tensor alias not found in signature: {', '.join(unknown)}")
        feeds = {signature.inputs[name].name: value for name, value in inputs.items()}
        try:
            values = self._session.run([signature.outputs[name].name for name in names], feeds)
        except tf.errors.OpError as error:
            raise StatusError.of(error) from error
        return dict(zip(names, values, strict=True))

    def _warm_up(self, file: Path) -> int:
        """Run the recorded predict requests, as the C++ server does before a version is available."""
        if not file.is_file():
            return 0
        count = 0
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.WhichOneof("log_type") != "predict_log":
                raise ValueError(f"{file} must hold predict requests; record {count} is none")
            request = log.predict_log.request
            try:
                inputs = {name: from_proto(value) for name, value in request.inputs.items()}
                self.run(self.signature(request.model_spec.signature_name), inputs)
            except StatusError as error:
                raise ValueError(f"warm-up request {count} failed: {error.message}") from error
            count += 1
        return count


def _check_inputs(signature: Any, inputs: Mapping[str, np.ndarray]) -> None:
    extra, missing = set(inputs) - set(signature.inputs), set(signature.inputs) - set(inputs)
    if extra or missing:
        raise invalid(
            f"input size does not match signature: {len(inputs)}!={len(signature.inputs)}. "
            f"Sent extra: {{{','.join(sorted(extra))}}}. "
            f"Missing but required: {{{','.join(sorted(missing))}}}."
        )
    for name, value in inputs.items():
        info = signature.inputs[name]
        dtype, shape = tf.dtypes.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)
        given = tf.dtypes.as_dtype(value.dtype)
        if given != dtype:
            raise invalid(f"input {name} must be {dtype.name}; got {given.name}")
        if not shape.is_compatible_with(value.shape):
            raise invalid(f"input {name} must have shape {shape}; got {tf.TensorShape(value.shape)}")
