"""Retrieval metrics in the logs of `fit`."""

import csv
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from rll_tf import RankedListLoss, data
from rll_tf.evaluation import RetrievalMetrics, concatenate_levels, retrieval_metrics
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def points():
    """Inputs [60, 4] and labels of ten classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 10
    return (rng.normal(size=[10, 4])[labels] + rng.normal(size=[60, 4])).astype(np.float32), labels


def network(outputs=None):
    """Dense layers, one output or a dictionary or a list of them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input([4])
    found = {name: keras.layers.Dense(3, name=name)(inputs) for name in outputs or ["only"]}
    if outputs is None:
        return keras.Model(inputs, found["only"])
    return keras.Model(inputs, list(found.values()) if isinstance(outputs, list) else found)


def fitted(model, points, *callbacks, epochs=1, rate=0.0):
    """What `fit` logs, its weights unchanged where the rate is 0."""
    inputs, labels = points
    if isinstance(model.output, dict):
        labels = dict.fromkeys(model.output, labels)
    elif isinstance(model.output, list):
        labels = [labels] * len(model.output)
    loss = keras.tree.map_structure(lambda _: RankedListLoss(), model.output)
    model.compile(keras.optimizers.SGD(rate), loss=loss, run_eagerly=True)
    history = model.fit(
        inputs, labels, batch_size=60, epochs=epochs, verbose=0, shuffle=False, callbacks=list(callbacks)
    )
    return history.history


def logged(metrics, prefix="val_"):
    """As names and values of a history of one epoch."""
    return {prefix + name: pytest.approx([value]) for name, value in metrics.items()}


def dataset(points, labels=True):
    """One by one."""
    return tf.data.Dataset.from_tensor_slices(points if labels else points[0])


FORMS = {
    "arrays": lambda points: points,
    "tensors": lambda points: (tf.constant(points[0]), [f"class {label}" for label in points[1]]),
    "one by one": lambda points: (dataset(points),),
    "batches": lambda points: (dataset(points).batch(7),),
    "columns": lambda points: (dataset((points[0], points[1][:, None])).batch(7),),
    "labels of each output": lambda points: (dataset(points).batch(7).map(lambda x, y: (x, {"only": y})),),
    "labels apart": lambda points: (dataset(points, labels=False).batch(7), points[1]),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_output(points, form):
    """The metrics of its embeddings, normalised as the loss does, whatever holds the pictures."""
    model = network()
    expected = retrieval_metrics(model(points[0]), points[1], clustering=False, normalize=True)
    history = fitted(model, points, RetrievalMetrics(*FORMS[form](points), batch_size=16))
    assert {name: history[name] for name in history if name != "loss"} == logged(expected)


def test_arguments_reach_the_metrics(points):
    """Other Ks, no normalising, clusters, a gallery."""
    model = network()
    embeddings, labels = model(points[0]).numpy(), points[1]
    expected = retrieval_metrics(
        embeddings[:20], labels[:20], (1, 3), gallery=embeddings[20:], gallery_labels=labels[20:]
    )
    callback = RetrievalMetrics(
        points[0][:20],
        labels[:20],
        gallery=tf.data.Dataset.from_tensor_slices((points[0][20:], labels[20:])),
        recall_at=(1, 3),
        normalize=False,
        clustering=True,
    )
    history = fitted(model, points, callback)
    assert {name: history[name] for name in history if name != "loss"} == logged(expected)


@pytest.mark.parametrize("outputs", [("low", "high"), ["low", "high"]], ids=["dictionary", "list"])
def test_several_outputs(points, outputs):
    """Each by its name, and their normalised concatenation."""
    model = network(outputs)
    values = model(points[0])
    values = values if isinstance(values, dict) else dict(zip(outputs, values, strict=True))
    units = {name: each / np.linalg.norm(each, axis=1, keepdims=True) for name, each in values.items()}
    history = fitted(model, points, RetrievalMetrics(*points))
    for prefix, embeddings in {
        "val_": concatenate_levels(units), "val_low_": units["low"], "val_high_": units["high"]
    }.items():  # fmt: skip
        for name, value in logged(retrieval_metrics(embeddings, points[1], clustering=False), prefix).items():
            assert history[name] == value
    alone = fitted(model, points, RetrievalMetrics(*points, outputs=["high"]))
    assert alone["val_recall@1"] == pytest.approx(history["val_high_recall@1"])
    assert not any("high_r" in name for name in alone)


def test_other_callbacks_see_them(points, tmp_path):
    """Those that choose, stop, slow down and write."""
    seen = keras.callbacks
    options = {"monitor": "val_recall@1", "mode": "max"}
    callbacks = [
        RetrievalMetrics(*points),
        seen.ReduceLROnPlateau(**options, patience=1, factor=0.5),
        seen.ModelCheckpoint(tmp_path / "best.keras", **options, save_best_only=True),
        seen.CSVLogger(tmp_path / "log.csv"),
        seen.EarlyStopping(**options, patience=3),
    ]
    model = network()
    history = fitted(model, points, *callbacks, epochs=9, rate=1e-12)
    assert len(history["val_recall@1"]) == 4  # it does not learn: the first, and three without any better
    assert float(model.optimizer.learning_rate) < 1e-12
    assert (tmp_path / "best.keras").exists()
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [float(row["val_map@r"]) for row in rows] == pytest.approx(history["val_map@r"])


def test_every_so_many_epochs(points):
    """The first, each n-th and the last; the others lack the names, as under `validation_freq`."""
    epochs = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            epochs.append("val_recall@1" in logs)

    fitted(network(), points, RetrievalMetrics(*points, every=3), Watch(), epochs=8)
    assert [number for number, present in enumerate(epochs, 1) if present] == [1, 3, 6, 8]


def test_it_follows_the_training(points):
    """Weights are read anew, and not changed."""
    callback = RetrievalMetrics(*points)
    model = network()
    history = fitted(model, points, callback, epochs=3, rate=0.5)
    expected = retrieval_metrics(model(points[0]), points[1], clustering=False, normalize=True)
    assert callback.results["concat"] == pytest.approx(expected)
    assert len(set(history["val_map@r"])) == 3
    without = network()
    assert fitted(without, points, epochs=3, rate=0.5)["loss"] == history["loss"]


def test_a_catalogue(points):
    """Its batches and its labels."""
    digits = data.open_dataset("digits").take(np.arange(50))
    shape = data.Preprocessing(input_px=8, resize_px=8)
    model = keras.Sequential([keras.Input([8, 8, 3]), keras.layers.Flatten()])
    callback = RetrievalMetrics(data.evaluation_batches(digits, shape), digits.labels)
    callback.set_model(model)
    assert 0.5 < callback.compute()["concat"]["recall@1"] <= 1


def test_wrong_arguments(points):
    """Errors say what is taken."""
    with pytest.raises(TypeError, match="got Catalogue; of a catalogue pass rll_tf"):
        RetrievalMetrics(data.open_dataset("digits"))
    with pytest.raises(ValueError, match="pictures in an array need labels"):
        RetrievalMetrics(points[0])
    with pytest.raises(ValueError, match=r"dataset of \(picture, label\), or labels must be given"):
        RetrievalMetrics(dataset(points, labels=False))
    with pytest.raises(ValueError, match="it repeats for ever"):
        RetrievalMetrics(dataset(points).repeat())
    with pytest.raises(ValueError, match="every must be at least 1"):
        RetrievalMetrics(*points, every=0)
    callback = RetrievalMetrics(*points, outputs=["middle"])
    callback.set_model(network(("low", "high")))
    with pytest.raises(ValueError, match="outputs must be some of low, high: got middle"):
        callback.compute()


REPLICAS = """
import keras, numpy as np, tensorflow as tf
from rll_tf import RankedListLoss
from rll_tf.evaluation import RetrievalMetrics, retrieval_metrics

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
x, y = np.random.default_rng(0).normal(size=[24, 4]).astype("float32"), np.arange(24) % 8
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    model.compile("sgd", RankedListLoss())
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(12)
callback = RetrievalMetrics(x, y)
history = model.fit(data, verbose=0, callbacks=[callback], epochs=2).history
expected = retrieval_metrics(model(x), y, clustering=False, normalize=True)
assert abs(history["val_map@r"][-1] - expected["map@r"]) < 1e-6, (history, expected)
"""


@pytest.mark.slow
def test_under_a_strategy():
    """Two replicas train; the metrics are those of the model they share."""
    subprocess.run([sys.executable, "-c", REPLICAS], cwd=ROOT, check=True)
