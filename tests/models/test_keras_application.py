"""Networks of `keras.applications` as backbones, with random weights and with files of weights."""

import keras
import numpy as np
import pytest

from rll_tf import RankedListLoss
from rll_tf.models import embedding_model, find_backbone, freeze_batch_norm
from rll_tf.training import Settings, build


def trunk(name, px, weights=None):
    """The trunk of a network, for square pictures."""
    return find_backbone(f"keras:{name}").trunk((px, px, 3), weights)


def pixels(px):
    """Two random pictures of 0 to 255."""
    return np.random.default_rng(0).uniform(0, 255, [2, px, px, 3]).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "px", "taps"),
    [
        pytest.param(
            "ResNet50", 64, {"conv3_block4_out": 8, "conv4_block6_out": 4, "conv5_block3_out": 2},
            marks=pytest.mark.slow,
        ),
        ("MobileNetV2", 64, {"block_6_expand_relu": 8, "block_13_expand_relu": 4, "out_relu": 2}),
        ("VGG16", 64, {"block4_conv3": 8, "block5_conv3": 4, "block5_pool": 2}),
        # Unpadded convolutions, so that sides don't divide evenly.
        pytest.param("InceptionV3", 128, {"mixed2": 13, "mixed7": 6, "mixed10": 2}, marks=pytest.mark.slow),
        # Each cell reads the two before it.
        pytest.param(
            "NASNetMobile", 224, {"normal_concat_3": 28, "normal_concat_8": 14, "activation": 7},
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_the_taps_end_the_last_three_strides(name, px, taps):
    """The last tensors at strides 8, 16 and 32 that everything flows through; Keras numbers activations."""
    found = trunk(name, px).output
    names = [tap._keras_history.operation.name for tap in found.values()]
    assert list(found) == ["low", "mid", "high"]
    for layer, wanted, side, tap in zip(names, taps, taps.values(), found.values(), strict=True):
        assert layer.startswith(wanted)
        assert tap.shape[1:3] == (side, side)


@pytest.mark.parametrize("name", ["VGG16", "MobileNet", pytest.param("DenseNet121", marks=pytest.mark.slow)])
def test_pictures_are_preprocessed_as_the_network_needs_it(name, tmp_path):
    """Each of Keras's three ways: blue first less a mean, −1 to 1, by the mean and deviation of channels."""
    network = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(64, 64, 3))
    network.save_weights(tmp_path / "a.weights.h5")
    module = {"VGG16": "vgg16", "MobileNet": "mobilenet", "DenseNet121": "densenet"}[name]
    prepared = getattr(keras.applications, module).preprocess_input(pixels(64))
    wanted = network(prepared)
    found = trunk(name, 64, str(tmp_path / "a.weights.h5"))(pixels(64))["high"]
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_weights_from_a_file_in_a_training(tmp_path):
    """Keras's older format, in which its ImageNet weights are; the new layers learn faster."""
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    network.save(tmp_path / "a.h5")
    settings = Settings(
        backbone="keras:MobileNet", weights=str(tmp_path / "a.h5"), input_px=32, levels=("mid",),
        embedding_dim=8, new_layers_rate=10.0,
    )  # fmt: skip
    assert (settings.preprocessing.mean, settings.preprocessing.scale) == ((0, 0, 0), 1)
    model = build(settings)
    np.testing.assert_array_equal(model.get_layer("conv1").kernel, network.get_layer("conv1").kernel)
    assert model.optimizer.multipliers == {"mid_embedding": 10.0}
    assert "conv_pw_13" not in {layer.name for layer in model.layers}


def test_imagenet_weights_by_name(monkeypatch):
    """Keras downloads them; where it can't, the error is one line."""

    def download(include_top, weights, input_tensor):
        raise OSError(f"URL fetch failure: no network for {weights}\nmore")

    download.__module__ = keras.applications.MobileNet.__module__
    monkeypatch.setattr(keras.applications, "MobileNet", download)
    message = r"can't build MobileNet with weights imagenet: URL fetch failure: no network for imagenet$"
    with pytest.raises(ValueError, match=message):
        build(Settings(backbone="keras:MobileNet", weights="imagenet", input_px=32))


def test_frozen_batch_norm_does_not_move():
    """One step leaves statistics, scales and offsets, and changes kernels."""
    model = freeze_batch_norm(embedding_model("keras:MobileNet", ["low"], 8, input_shape=(32, 32, 3)))
    model.compile("sgd", {"low": RankedListLoss()}, jit_compile=False, run_eagerly=True)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [weights.numpy() for layer in norms for weights in layer.weights]
    kernel = model.get_layer("conv1").kernel.numpy()
    model.train_on_batch(np.repeat(pixels(32), 2, 0), {"low": np.array([0, 0, 1, 1])})
    for old, new in zip(before, (weights for layer in norms for weights in layer.weights), strict=True):
        np.testing.assert_array_equal(new, old)
    assert not np.array_equal(model.get_layer("conv1").kernel, kernel)


def test_saved_and_loaded(tmp_path):
    """A network that takes blue first, with equal outputs."""
    model = embedding_model("keras:VGG16", ["low"], 8, input_shape=(32, 32, 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(pixels(32))["low"], model(pixels(32))["low"], atol=1e-6)


def test_what_is_not_there_is_refused():
    """An unknown name, with those most like it; weights of a backbone that has none by name."""
    with pytest.raises(ValueError, match=r"keras.applications has no 'ResNet5'; .* ResNet50"):
        embedding_model("keras:ResNet5")
    with pytest.raises(ValueError, match="convnet: load_pretrained sets its weights; got weights='imagenet'"):
        embedding_model("convnet", weights="imagenet")
    with pytest.raises(ValueError, match="no package holds ImageNet weights of convnet"):
        build(Settings(weights="imagenet"))
