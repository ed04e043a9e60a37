"""From settings to a compiled model: precision, pretrained weights, rates."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rll_tf.models import pretrained_origin
from rll_tf.models.inception_bn import keras_name, weighted_layers
from rll_tf.models.weights.naming import PYTORCH
from rll_tf.training import CaffeSGD, Settings, build
from tests.models import reference as golden_values

SMALL = {"backbone": "inception_bn", "input_px": 75, "embedding_dim": 16, "steps": 10, "learning_rate": 0.001}
LOW = {**SMALL, "levels": ("low",)}  # a third of the network


@pytest.fixture(scope="module")
def pictures():
    """Six pictures of two classes, smooth enough to differ as pictures do."""
    noise = np.random.default_rng(0).uniform(-120, 120, [6, 5, 5, 3]).astype(np.float32)
    return tf.image.resize(noise, [75, 75], "bicubic").numpy()


@pytest.fixture(scope="module")
def reference(pictures):
    """Weights, with statistics of these pictures, and their embeddings in float32."""
    model = build(Settings(**LOW))
    for _ in range(10):
        model(pictures, training=True)
    return model.get_weights(), model(pictures)


@pytest.mark.parametrize(
    "precision", [pytest.param("float32", marks=pytest.mark.slow), "mixed_float16", "mixed_bfloat16"]
)
def test_each_precision_trains_and_agrees(precision, pictures, reference):
    """The same weights' embeddings within 2e-2 in cosine distance; a step is finite, rows of unit norm."""
    weights, wanted = reference
    model = build(Settings(**LOW, precision=precision))
    assert model.get_layer("conv2_3x3").compute_dtype == precision.removeprefix("mixed_")
    assert keras.config.dtype_policy().name == "float32"
    model.set_weights(weights)
    model.run_eagerly = True  # tracing three graphs would be most of the time
    for level, embedding in model(pictures).items():
        assert embedding.dtype == "float32"
        assert np.sum(embedding * wanted[level], axis=1).min() > 1 - 2e-2
    labels = dict.fromkeys(wanted, np.array([0, 0, 0, 1, 1, 1]))
    losses = model.train_on_batch(pictures, labels, return_dict=True)
    assert all(np.isfinite(value) for value in losses.values())
    assert int(model.optimizer.iterations) == 1 or precision == "mixed_float16"
    for embedding in model(pictures).values():
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-3)


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The reference's weights for the smallest input with whole 5×5 windows in each head; float32 embeddings.

    Their activations reach 3,600 there: a sum of 25 of them is no float16 number.
    """
    file = tmp_path_factory.mktemp("weights") / "golden.caffemodel"
    settings = Settings(**{**SMALL, "input_px": 135, "embedding_dim": None})
    model = build(settings)
    golden_values.write_caffemodel(file, golden_values.caffe_tensors_for(model))
    settings = settings.override([f"weights={file}"])
    pictures = golden_values.inputs(settings.input_px, golden_values.CAFFE_MEAN)
    return settings, pictures, build(settings)(pictures)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_each_precision_carries_the_reference_weights(precision, golden):
    """Activations as large as a trained network's: embeddings agree, a step's losses are finite."""
    settings, pictures, wanted = golden
    model = build(settings.override([f"precision={precision}"]))
    model.run_eagerly = True
    for level, embedding in model(pictures).items():
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-3)
        assert np.sum(embedding * wanted[level], axis=1).min() > 1 - 2e-2
    labels = dict.fromkeys(wanted, np.array([0, 1, 0, 1]))
    losses = model.train_on_batch(np.concatenate([pictures, pictures[:, :, ::-1]]), labels, return_dict=True)
    assert all(np.isfinite(value) for value in losses.values())
    for embedding in model(pictures).values():
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-3)


def write_ports_weights(file, model):
    """Ones under the PyTorch port's names, for the layers of the model's trunk."""
    layers, tensors = {layer.name: layer for layer in model.layers}, {}
    for name, has_norm in weighted_layers():
        layer = layers.get(keras_name(name))
        if layer is not None and not name.startswith("loss"):
            names = PYTORCH.tensors(name, has_norm)
            tensors |= {names[role]: np.ones(layer.kernel.shape[-1]) for role in names}
            tensors[names["kernel"]] = np.ones(layer.kernel.shape[::-1])
    np.savez(file, **tensors)
    return file


def test_pretrained_weights_bring_their_pixels(tmp_path):
    """The mean must be that of the file's origin, and every layer that it lacks learns faster."""
    settings = Settings(**LOW, new_layers_rate=10.0)
    file = write_ports_weights(tmp_path / "a.npz", build(settings))
    assert pretrained_origin(file) == "pytorch"
    with pytest.raises(
        ValueError, match=r"pytorch origin need pixels=pytorch; got mean \(104.0, 117.0, 123.0\)"
    ):
        build(settings.override([f"weights={file}"]))
    model = build(settings.override([f"weights={file}", "pixels=pytorch"]))
    assert model.optimizer.multipliers == dict.fromkeys(["loss1_fc_bn_sc_fc", "loss1_conv", "loss1_fc"], 10)


@pytest.mark.parametrize(
    "name", ["a.npz", *(pytest.param(name, marks=pytest.mark.slow) for name in ("a.weights.h5", "a.keras"))]
)
def test_keras_weights_need_pixels(name, tmp_path):
    """They may have been trained with either mean, so the user must name it."""
    settings, file = Settings(**LOW), tmp_path / name
    model = build(settings)
    if name == "a.npz":
        np.savez(file, **{weight.path: weight.numpy() for weight in model.weights})
    else:
        (model.save if name == "a.keras" else model.save_weights)(file)
    settings = settings.override([f"weights={file}"])
    with pytest.raises(
        ValueError, match=r"a\..* doesn't record which mean .* needs pixels=caffe or pixels=pytorch"
    ):
        build(settings)
    build(settings.override(["pixels=pytorch"]))


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_only_float16_scales_the_loss(precision):
    """Its range alone is too short for gradients."""
    optimizer = build(Settings(steps=1, input_px=16, precision=precision)).optimizer
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")
    assert isinstance(optimizer.inner_optimizer if scaled else optimizer, CaffeSGD)


def test_rates():
    """A cosine, or halved after every so many steps."""
    rates = build(Settings(steps=10, learning_rate=0.8)).optimizer._learning_rate
    assert [round(float(rates(step)), 3) for step in (0, 5, 10)] == [0.8, 0.4, 0.0]
    rates = build(Settings(learning_rate=0.8, halve_every_steps=4)).optimizer._learning_rate
    assert [round(float(rates(step)), 3) for step in (0, 3, 4, 8)] == [0.8, 0.8, 0.4, 0.2]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("precision=half", "must be one of float32, float64, mixed_float16, mixed_bfloat16; got 'half'"),
        ("pixels=rgb", "must be one of unit, caffe, pytorch, efficientnet_lite, byte; got 'rgb'"),
        ("halve_every_steps=0", "halve_every_steps must be at least 1; got 0"),
        ("weight_decay=-1", "weight_decay must not be negative; got -1"),
    ],
)
def test_bad_settings_are_refused(assignment, message):
    """Each has its own message."""
    with pytest.raises(ValueError, match=message):
        Settings().override([assignment])
