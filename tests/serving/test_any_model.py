"""A user's own Keras model, exported."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rll_tf.data import Preprocessing
from rll_tf.models import embedding_model
from serving.any_model import PIXEL_RANGES, as_embedding_model
from serving.artefact import Artefact
from serving.export import export
from trainers import cli

PICTURES = np.random.default_rng(0).normal(size=[5, 16, 16, 3]).astype(np.float32)


def unit(values):
    """Divided by their norms."""
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def convolutions(channels=3):
    """Layers that end in features."""
    return [
        keras.Input([16, 16, channels]),
        keras.layers.Conv2D(4, 3, strides=2, activation="relu"),
        keras.layers.Flatten(),
    ]


class Subclassed(keras.Model):
    """Its inputs and outputs are known to nobody."""

    def __init__(self):
        super().__init__()
        self.inner = [keras.layers.Flatten(), keras.layers.Dense(6)]

    def call(self, pictures):
        """An embedding of any norm."""
        first = self.inner[0](pictures)
        return self.inner[1](first)


def with_outputs(kind):
    """A model of two embeddings, in a list or a dictionary."""
    inputs = keras.Input([16, 16, 3])
    features = keras.layers.Flatten()(inputs)
    first, second = (keras.layers.Dense(4, name=name)(features) for name in ("first", "second"))
    return keras.Model(inputs, [first, second] if kind is list else {"first": first, "second": second})


@pytest.mark.parametrize(
    "make", [lambda: keras.Sequential([*convolutions(), keras.layers.Dense(6)]), Subclassed]
)
def test_one_output_is_an_embedding_of_unit_norm(make):
    """Of any kind of Keras model, also of one in half precision."""
    model = make()
    wrapped = as_embedding_model(model, Preprocessing(16, 16))
    np.testing.assert_allclose(
        wrapped(PICTURES)["embedding"], unit(model(PICTURES).numpy()), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", [list, dict])
def test_several_outputs_keep_their_names(kind):
    """Those of a dictionary, otherwise those of the layers."""
    model = with_outputs(kind)
    found = as_embedding_model(model, Preprocessing(16, 16))(PICTURES)
    expected = model(PICTURES)
    expected = expected if kind is dict else dict(zip(("first", "second"), expected, strict=True))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], unit(values.numpy()), rtol=1e-5, atol=1e-6)


def test_a_model_of_this_package_stays_as_it_is():
    """So does its signature of one level, which needs that level's layers alone; proxies are left out."""
    model = embedding_model(embedding_dim=4, input_shape=(16, 16, 3))
    assert as_embedding_model(model, Preprocessing(16, 16)) is model
    model = embedding_model(levels=["high"], embedding_dim=4, input_shape=(16, 16, 3), proxies=3)
    assert set(as_embedding_model(model, Preprocessing(16, 16)).output) == {"high"}


def test_what_can_not_be_embeddings_is_refused():
    """The message says what must hold."""
    with pytest.raises(ValueError, match=r"input_px must be the model's own 16; got 32"):
        as_embedding_model(with_outputs(list), Preprocessing(32, 32))
    with pytest.raises(ValueError, match=r"must be \[B, d\] of floats; .* is \(None, 7, 7, 4\)"):
        as_embedding_model(keras.Sequential(convolutions()[:2]), Preprocessing(16, 16))
    for shape in ([8], [16, 16, 4]):
        other = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(4)])
        with pytest.raises(ValueError, match=rf"must take square pictures.*it takes \(None, {shape[0]}"):
            as_embedding_model(other, Preprocessing(16, 16))
    pictures = keras.Input([16, 16, 3])
    classes = keras.Model(pictures, keras.ops.argmax(pictures[:, 0], axis=1))
    with pytest.raises(ValueError, match=r"must be \[B, d\] of floats; output embedding is .* int32"):
        as_embedding_model(classes, Preprocessing(16, 16))


def test_what_is_no_model_is_one_line(tmp_path, capfd):
    """A file that is cut short, or of something else, or with a layer of its author's."""

    class Own(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    keras.Sequential([keras.Input([16, 16, 3]), Own()]).save(tmp_path / "own.keras")
    (tmp_path / "cut.keras").write_bytes((tmp_path / "own.keras").read_bytes()[:-50])
    (tmp_path / "text.keras").write_text("text")
    for name, message in {
        "cut": "must be a model that Keras saved; it is no archive, or is not whole",
        "text": "must be a model that Keras saved; it is no archive, or is not whole",
        "own": "can't be loaded: Could not locate class 'Own'",
    }.items():
        words = ["export", str(tmp_path / f"{name}.keras"), "--to", str(tmp_path / "exported")]
        assert cli.run([*words, "--preprocessing", "raw"]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert message in line
        assert len(line) < 500


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_pixels_are_scaled_as_keras_does(mode):
    """By the names of `keras.applications`' modes."""
    pixels = np.random.default_rng(0).integers(0, 256, [2, 4, 4, 3], np.uint8)
    ours = Preprocessing(4, 4, **PIXEL_RANGES[mode]).normalise(pixels)
    theirs = keras.applications.imagenet_utils.preprocess_input(pixels.astype(np.float32), mode=mode)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_file_of_a_model_is_exported_by_the_command(tmp_path, capfd):
    """Here of grey pictures; what the artefact embeds is what the model does."""
    model = keras.Sequential([*convolutions(channels=1), keras.layers.Dense(6)])
    model.save(tmp_path / "mine.keras")
    words = ["export", str(tmp_path / "mine.keras"), "--to", str(tmp_path / "exported")]
    assert cli.run(words) == 1
    assert "give --preprocessing raw|0-1|tf|torch|caffe" in capfd.readouterr().err
    assert cli.run([*words, "--preprocessing", "0-1"]) == 0
    grey = np.random.default_rng(0).integers(0, 256, [3, 16, 16, 1], np.uint8)
    found = Artefact(tmp_path / "exported").embed([tf.io.encode_png(picture).numpy() for picture in grey])
    np.testing.assert_allclose(found, unit(model(grey / 255).numpy()), atol=2e-4)


@pytest.mark.slow
def test_a_model_of_several_outputs_is_exported_by_the_function(tmp_path):
    """Each output has a signature; a mean and a scale for each channel come back from the metadata."""
    model, preprocessing = with_outputs(dict), Preprocessing(16, 20, **PIXEL_RANGES["torch"])
    export(model, preprocessing, tmp_path)
    artefact = Artefact(tmp_path)
    assert artefact.levels == {"first": 4, "second": 4}
    assert Preprocessing.from_dict(artefact.metadata["preprocessing"]) == preprocessing
    file = tf.io.encode_png(np.full([30, 40, 3], 200, np.uint8)).numpy()
    expected = model(preprocessing.prepare(file)[None])["second"].numpy()
    np.testing.assert_allclose(artefact.embed([file], "second"), unit(expected), atol=1e-5)
