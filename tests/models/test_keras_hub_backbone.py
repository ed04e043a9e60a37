"""KerasHub backbones. Its presets come from Kaggle; here they lie in directories."""

import sys

import keras
import numpy as np
import pytest

from rll_tf import RankedListLoss
from rll_tf.models import embedding_model, freeze_batch_norm
from tests.conftest import rll_process, write_pictures

SCALE, OFFSET = [0.02, 0.03, 0.04], [-1.0, -2.0, -3.0]


@pytest.fixture(scope="module")
def keras_hub():
    """The package."""
    return pytest.importorskip("keras_hub", reason="keras-hub is not installed: make test-all")


@pytest.fixture(scope="module")
def backbone(keras_hub):
    """A small ResNet of four strides, 4 to 32."""
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 16, 24, 32],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        use_pre_activation=False,
    )


@pytest.fixture(scope="module")
def preset(keras_hub, backbone, tmp_path_factory):
    """It in the layout of KerasHub's presets, with an image converter."""
    folder = tmp_path_factory.mktemp("preset")
    backbone.save_to_preset(folder)
    keras_hub.layers.ResNetImageConverter(scale=SCALE, offset=OFFSET).save_to_preset(folder)
    return folder


def pixels():
    """Two random pictures of 0 to 255, not square."""
    return np.random.default_rng(0).uniform(0, 255, [2, 64, 96, 3]).astype(np.float32)


def test_the_last_three_pyramid_levels_are_the_taps(preset, backbone):
    """Strides 8, 16 and 32, with the preset's weights and scaling; a level builds only what it needs."""
    model = embedding_model(f"keras_hub:{preset}", embedding_dim=6, input_shape=(64, 96, 3))
    widths = [model.get_layer(f"{level}_embedding").kernel.shape for level in ("low", "mid", "high")]
    assert widths == [(16, 6), (24, 6), (32, 6)]
    features = backbone(pixels() * SCALE + OFFSET).numpy().mean((1, 2))
    features = features @ model.get_layer("high_embedding").kernel
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(model(pixels())["high"], features, atol=1e-5)
    low = embedding_model(f"keras_hub:{preset}", ["low"], 6, input_shape=(64, 96, 3))
    assert {weights.shape[-1] for weights in low.weights} == {64, 16, 6}


def test_a_preset_without_a_converter_takes_pixels_as_they_are(backbone, tmp_path):
    """A backbone saved alone says nothing about scaling."""
    backbone.save_to_preset(tmp_path)
    model = embedding_model(f"keras_hub:{tmp_path}", ["high"], 6, input_shape=(64, 96, 3))
    features = backbone(pixels()).numpy().mean((1, 2)) @ model.get_layer("high_embedding").kernel
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(model(pixels())["high"], features, atol=1e-5)


def test_frozen_batch_norm_does_not_move_and_the_model_is_saved(preset, tmp_path):
    """One step leaves statistics, scales and offsets, and changes kernels."""
    model = freeze_batch_norm(embedding_model(f"keras_hub:{preset}", ["low"], 8, input_shape=(64, 96, 3)))
    model.compile("sgd", {"low": RankedListLoss()}, jit_compile=False, run_eagerly=True)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [weights.numpy() for layer in norms for weights in layer.weights]
    trained = [weights.numpy() for weights in model.trainable_weights]
    model.train_on_batch(np.repeat(pixels(), 2, 0), {"low": np.array([0, 0, 1, 1])})
    assert before
    for old, new in zip(before, (weights for layer in norms for weights in layer.weights), strict=True):
        np.testing.assert_array_equal(new, old)
    assert not any(np.array_equal(*pair) for pair in zip(trained, model.trainable_weights, strict=True))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(pixels())["low"], model(pixels())["low"], atol=1e-6)


def test_a_backbone_without_a_pyramid_is_refused(keras_hub, tmp_path):
    """Such as a vision transformer, which has one stride."""
    transformer = keras_hub.models.ViTBackbone((64, 96, 3), 16, 1, 2, 8, 16)
    transformer.save_to_preset(tmp_path)
    with pytest.raises(ValueError, match="has 0 pyramid levels; low, mid and high need three"):
        embedding_model(f"keras_hub:{tmp_path}", input_shape=(64, 96, 3))


def test_a_preset_that_cannot_be_loaded_is_one_line(keras_hub, tmp_path):
    """Neither a known name nor a preset's directory."""
    with pytest.raises(ValueError, match=r"KerasHub can't load .*: \w+: .*$"):
        embedding_model(f"keras_hub:{tmp_path / 'none'}")


def test_without_keras_hub_the_error_says_what_to_install(monkeypatch):
    """It is an optional extra."""
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    message = r"keras_hub:resnet_50_imagenet needs KerasHub: python -m pip install 'rll_tf\[keras-hub\]'"
    with pytest.raises(ImportError, match=message):
        embedding_model("keras_hub:resnet_50_imagenet")


@pytest.mark.slow
def test_a_run_is_trained_evaluated_and_exported(preset, tmp_path):
    """Each command is a process of its own, which must know KerasHub's layers."""
    write_pictures(tmp_path / "pictures")
    settings = {
        "backbone": f"keras_hub:{preset}", "input_px": 64, "resize_px": 64, "embedding_dim": 8, "steps": 2,
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
