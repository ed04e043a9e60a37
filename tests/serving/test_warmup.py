"""Warm-up requests, read with TensorFlow Serving's own classes."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.warmup import WARMUP_FILE, write_warmup


def records(folder):
    """The file's records as the server parses them."""
    dataset = tf.data.TFRecordDataset(str(folder / WARMUP_FILE))
    return [prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in dataset]


def test_records_parse_with_the_official_classes(tmp_path):
    """Signature, names, dtypes and values come back; nothing else is in them."""
    pixels = np.arange(2 * 300 * 5 * 3).reshape(2, 300, 5, 3).astype(np.uint8)  # lengths above 127 and 16,383
    write_warmup(
        tmp_path, [("low", {"images": np.array([b"\x00\xff", b""], object)}), ("p", {"pixels": pixels})]
    )
    first, second = (record.predict_log.request for record in records(tmp_path))
    assert (first.model_spec.signature_name, second.model_spec.signature_name) == ("low", "p")
    assert list(tf.make_ndarray(first.inputs["images"])) == [b"\x00\xff", b""]
    np.testing.assert_array_equal(tf.make_ndarray(second.inputs["pixels"]), pixels)
    for record in records(tmp_path):
        assert record.WhichOneof("log_type") == "predict_log"
        wanted = prediction_log_pb2.PredictionLog()
        wanted.predict_log.request.CopyFrom(record.predict_log.request)
        assert record == wanted
        assert not record.predict_log.request.model_spec.name


def test_an_exported_model_s_records_run(artefact):
    """One a signature, and each is accepted."""
    folder = artefact
    signatures = tf.saved_model.load(str(folder)).signatures
    requests = [record.predict_log.request for record in records(folder)]
    assert sorted(request.model_spec.signature_name for request in requests) == sorted(signatures)
    metadata = json.loads((folder / "assets.extra" / "rll_tf.json").read_text())
    for request in requests:
        name = request.model_spec.signature_name
        assert set(request.inputs) == set(metadata["signatures"][name]["inputs"])
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        assert all(len(output) == 1 for output in signatures[name](**inputs).values())


def test_more_records_than_the_server_runs_are_refused(tmp_path):
    """It would ignore the rest."""
    with pytest.raises(ValueError, match="at most 1000 warm-up requests; got 1001"):
        write_warmup(tmp_path, [("low", {})] * 1001)
