"""Backbones and embedding models."""

import keras
import numpy as np
import pytest

import rll_tf
from rll_tf.models import convnet, embedding_model


def pictures(count=3, height=48, width=48):
    """Random input."""
    return np.random.default_rng(0).normal(size=[count, height, width, 3]).astype(np.float32)


def test_convnet_gives_four_named_taps():
    """Each block halves the sides, rounding down."""
    taps = convnet((50, 37, 3))(pictures(2, 50, 37))
    assert {name: tuple(tap.shape) for name, tap in taps.items()} == {
        "block_1": (2, 25, 18, 32),
        "block_2": (2, 12, 9, 64),
        "block_3": (2, 6, 4, 128),
        "block_4": (2, 3, 2, 128),
    }


@pytest.mark.parametrize(
    ("backbone", "eagerly"),
    [
        ("convnet", False),
        ("efficientnet_lite0", True),
        # Its many layers take most of the time; test_inception_bn.py has what is its own.
        pytest.param("inception_bn", True, marks=pytest.mark.slow),
        pytest.param("inception_bn", False, marks=pytest.mark.slow),
    ],
)
def test_contract(backbone, eagerly, tmp_path):
    """Every kind of backbone: unit rows a level, one training step, saved and loaded with equal outputs."""
    keras.utils.set_random_seed(0)
    sides = {"inception_bn": (75, 100, 3), "efficientnet_lite0": (32, 48, 3)}.get(backbone)
    model = embedding_model(backbone, embedding_dim=16, input_shape=sides)
    shape = model.input_shape[1:]
    inputs, labels = pictures(6, *shape[:2]), np.array([0, 0, 0, 1, 1, 1])
    embeddings = model(inputs)
    assert list(embeddings) == ["low", "mid", "high"]
    for embedding in embeddings.values():
        assert embedding.shape == (6, 16)
        assert embedding.dtype == "float32"
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    model.compile(
        "sgd",
        {level: rll_tf.RankedListLoss() for level in embeddings},
        jit_compile=False,
        run_eagerly=eagerly,
    )
    before = [weights.numpy() for weights in model.trainable_weights]
    model.fit(inputs, dict.fromkeys(embeddings, labels), batch_size=6, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.trainable_weights, strict=True)]
    assert all(changed)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    wanted = model(inputs)
    for level, embedding in loaded(inputs).items():
        np.testing.assert_allclose(embedding, wanted[level], atol=1e-6)


def test_a_low_only_model_builds_only_what_it_needs():
    """No layer beyond the tap that its head reads."""
    names = {layer.name for layer in embedding_model("convnet", ["low"]).layers}
    assert "block_2" in names
    assert not {"block_3", "block_4", "mid", "high"} & names


def test_embeddings_are_float32_under_mixed_precision():
    """The last layer normalises in float32, whatever the policy."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        embedding = embedding_model("convnet", ["high"])(pictures())["high"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert embedding.dtype == "float32"
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(backbone="resnet"), "unknown backbone 'resnet'; known are: convnet"),
        (dict(layout="caffe"), "convnet: it has no layouts; got layout='caffe'"),
        (dict(backbone="inception_bn", layout="x"), "layout must be one of caffe, pytorch; got layout='x'"),
        (dict(levels=[]), r"some of low, mid, high, each once; got \(\)"),
        (dict(levels=["low", "low"]), r"each once; got \('low', 'low'\)"),
        (dict(levels=["top"]), r"got \('top',\)"),
        (dict(embedding_dim=0), "embedding_dim must be at least 1; got 0"),
        (dict(input_shape=(15, 48, 3)), r"at least 16 px a side; got input_shape=\(15, 48, 3\)"),
    ],
)
def test_bad_arguments_are_refused_with_what_was_received(arguments, message):
    """Each has its own message."""
    with pytest.raises(ValueError, match=message):
        embedding_model(**arguments)
