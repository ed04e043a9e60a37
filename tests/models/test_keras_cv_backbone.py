"""KerasCV backbones by name. Its presets come from Kaggle; here one lies in a directory."""

import json
import sys
import types

import keras
import numpy as np
import pytest

from rll_tf.models import embedding_model
from tests.conftest import rll_process, write_pictures


def pyramid(address, input_shape):
    """A model with four pyramid levels, as KerasCV's backbones have them."""
    if address != "kaggle://toy":
        raise ConnectionError(f"no network for {address}\nmore")
    features = inputs = keras.Input(input_shape)
    for level in (2, 3, 4, 5):
        features = keras.layers.Conv2D(level, 3, 2, "same", name=f"stage_{level}")(features)
    model = keras.Model(inputs, features)
    model.pyramid_level_inputs = {f"P{level}": f"stage_{level}" for level in (5, 2, 3, 4)}
    return model


class Backbone:
    """Of a KerasCV whose one subclass has two presets of ours: it takes addresses, no names."""

    from_preset = staticmethod(pyramid)
    presets = {}  # noqa: RUF012


class Toy(Backbone):
    """The subclass."""

    presets = {  # noqa: RUF012
        "toy": {"kaggle_handle": "kaggle://toy"},
        "gone": {"kaggle_handle": "kaggle://gone"},
    }


@pytest.fixture
def toy(monkeypatch):
    """KerasCV with these backbones."""
    models = types.SimpleNamespace(Backbone=Backbone, Toy=Toy, other=3)
    monkeypatch.setitem(sys.modules, "keras_cv", types.SimpleNamespace(models=models))


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A small EfficientNetV2 of KerasCV's own, with layers of its own, in the layout of its presets."""
    keras_cv = pytest.importorskip("keras_cv", reason="keras-cv is not installed: make test-all")
    backbone = keras_cv.models.EfficientNetV2Backbone(
        width_coefficient=1.0,
        depth_coefficient=1.0,
        include_rescaling=True,
        input_shape=(None, None, 3),
        stackwise_kernel_sizes=[3] * 6,
        stackwise_num_repeats=[1] * 6,
        stackwise_input_filters=[8] * 6,
        stackwise_output_filters=[8, 8, 8, 8, 8, 16],
        stackwise_expansion_ratios=[1, 4, 4, 4, 6, 6],
        stackwise_squeeze_and_excite_ratios=[0, 0, 0, 0.25, 0.25, 0.25],
        stackwise_strides=[1, 2, 2, 2, 1, 2],
        stackwise_conv_types=["fused"] * 3 + ["unfused"] * 3,
    )
    folder = tmp_path_factory.mktemp("preset")
    config = keras.saving.serialize_keras_object(backbone) | {"weights": "model.weights.h5"}
    (folder / "config.json").write_text(json.dumps(config))
    backbone.save_weights(folder / "model.weights.h5")
    return folder, backbone


@pytest.mark.usefixtures("toy")
def test_the_last_three_pyramid_levels_are_the_taps():
    """Low is stride 8, mid 16, high 32; a subset builds only what it needs."""
    model = embedding_model("keras_cv:toy", embedding_dim=6, input_shape=(32, 64, 3))
    assert [model.get_layer(f"{level}_dense").kernel.shape for level in ("low", "mid", "high")] == [
        (3, 6),
        (4, 6),
        (5, 6),
    ]
    for embedding in model(np.random.default_rng(0).normal(size=[2, 32, 64, 3])).values():
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    low = embedding_model("keras_cv:toy", ["low"], input_shape=(32, 64, 3))
    assert "stage_4" not in {layer.name for layer in low.layers}


@pytest.mark.usefixtures("toy")
def test_a_preset_that_cannot_be_loaded_is_one_line():
    """An unknown name, with those most like it; a known one that can't be fetched."""
    with pytest.raises(ValueError, match=r"no backbone preset 'tox', and .*; it has for example toy$"):
        embedding_model("keras_cv:tox")
    with pytest.raises(
        ValueError, match=r"KerasCV can't load gone: ConnectionError: no network for kaggle://gone$"
    ):
        embedding_model("keras_cv:gone")


def test_without_keras_cv_the_error_says_what_to_install(monkeypatch):
    """It is an optional extra."""
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(
        ImportError, match=r"backbone keras_cv:resnet18_v2 needs KerasCV: .* install keras-cv"
    ):
        embedding_model("keras_cv:resnet18_v2")


def test_a_real_preset(preset):
    """Its weights come along, and level `high` reads its last layer."""
    folder, backbone = preset
    model = embedding_model(f"keras_cv:{folder}", embedding_dim=8, input_shape=(64, 64, 3))
    images = np.random.default_rng(0).uniform(0, 255, [2, 64, 64, 3]).astype("float32")
    features = backbone(images).numpy().mean(axis=(1, 2)) @ model.get_layer("high_dense").kernel
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(model(images)["high"], features, atol=1e-5)


def test_a_real_name_leads_to_kaggle(preset, monkeypatch):
    """`resnet18_v2` is downloaded from KerasCV's address for it."""
    kagglehub = pytest.importorskip("kagglehub", reason="it comes with keras-cv")
    requests = []

    def download(handle, path):
        requests.append((handle, path))
        return str(preset[0] / path)

    monkeypatch.setattr(kagglehub, "model_download", download)
    embedding_model("keras_cv:resnet18_v2", ["low"], 8, input_shape=(64, 64, 3))
    assert {path for _, path in requests} == {"config.json", "model.weights.h5"}
    assert all(handle.startswith("keras/resnetv2/keras/resnet18_v2") for handle, _ in requests)


def test_a_backbone_without_a_pyramid_is_refused(tmp_path):
    """Such as VGG16, whose levels KerasCV doesn't name."""
    keras_cv = pytest.importorskip("keras_cv", reason="keras-cv is not installed: make test-all")
    vgg = keras_cv.models.VGG16Backbone(
        include_rescaling=False, include_top=False, input_shape=(None, None, 3)
    )
    config = keras.saving.serialize_keras_object(vgg) | {"weights": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="has 0 pyramid levels; low, mid and high need three"):
        embedding_model(f"keras_cv:{tmp_path}", input_shape=(64, 64, 3))


@pytest.mark.slow
def test_a_run_is_trained_evaluated_and_exported(preset, tmp_path):
    """Each command is a process of its own, which must know KerasCV's layers."""
    write_pictures(tmp_path / "pictures")
    settings = {
        "backbone": f"keras_cv:{preset[0]}", "input_px": 64, "resize_px": 64, "embedding_dim": 8, "steps": 2,
        "validate_every_steps": 1, "validation_share": 0.4, "classes_per_batch": 2, "images_per_class": 2,
    }  # fmt: skip
    data, run = f"folder:{tmp_path / 'pictures'}", str(tmp_path / "run")
    chosen = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    for words in (
        ["train", "convnet", "--data", data, "--out", run, *chosen],
        ["evaluate", run, "--data", data],
        ["export", run, "--to", str(tmp_path / "exported")],
    ):
        done = rll_process(*words)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "exported/1/saved_model.pb").is_file()
