"""Inception-BN: the table, any input size, and the reference activations."""

import csv

import numpy as np
import pytest

from rll_tf.models import embedding_model, inception_bn, load_pretrained
from rll_tf.models.inception_bn import keras_name, weighted_layers
from tests.models import reference


@pytest.fixture(scope="module")
def whole():
    """Both taps and embeddings of the paper's network at its size."""
    return embedding_model("inception_bn")


def test_every_layer_is_the_reference_files(whole):
    """Names, channels and kernels of the reference's layer table, in both directions."""
    table = (reference.folder() / "inception_bn_layers.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    names = {layer.name for layer in whole.layers}
    assert {keras_name(row["layer"]) for row in rows} <= names
    weighted = [row for row in rows if row["kind"] in ("convolution", "dense")]
    assert {row["layer"]: row["then"] == "bn+relu" for row in weighted} == dict(weighted_layers())
    for row in weighted:
        kernel = whole.get_layer(keras_name(row["layer"])).kernel
        assert kernel.shape[-1] == int(row["channels"])
        assert row["kind"] == "dense" or kernel.shape[0] == int(row["kernel"])
    for row in rows:
        if row["then"] == "bn+relu":
            assert {f"{keras_name(row['layer'])}_bn", f"{keras_name(row['layer'])}_relu"} <= names


@pytest.mark.parametrize(
    ("shape", "layout", "sides", "channels"),
    [
        ((75, 75, 3), "pytorch", (5, 3), 1056),
        ((76, 75, 3), "caffe", (5, 3), 1024),
        pytest.param((118, 118, 3), "caffe", (7, 4), 1024, marks=pytest.mark.slow),
    ],
)
def test_any_input_size(shape, layout, sides, channels):
    """Odd, even, oblong and the smallest inputs fit together; the layouts differ in 4e's channels."""
    taps = inception_bn(shape, layout).output
    assert [taps[tap].shape[1] for tap in taps] == [sides[0], sides[1], sides[1]]
    assert [taps[tap].shape[3] for tap in taps] == [576, channels, 1024]


def test_a_low_only_model_ends_at_3c():
    """Nothing of 4a or later, nor of the other heads."""
    names = {layer.name for layer in embedding_model("inception_bn", ["low"], input_shape=(75, 75, 3)).layers}
    assert {"inception_3c_output", "loss1_fc", "low"} <= names
    assert not [name for name in names if name.startswith(("inception_4", "inception_5", "loss2", "pool5"))]


def test_new_layers_start_from_caffes_xavier(whole):
    """Uniform within ±sqrt(3 / fan_in)."""
    for name, fan_in in (("pool5_7x7_s1_fc", 1024), ("loss1_fc_bn_sc_fc", 1024)):
        largest = np.abs(whole.get_layer(name).kernel).max()
        assert 0.99 * np.sqrt(3 / fan_in) < largest <= np.sqrt(3 / fan_in)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(layout="torch"), "layout must be one of caffe, pytorch; got 'torch'"),
        (dict(input_shape=(74, 80, 3)), r"at least 75 px a side; got input_shape=\(74, 80, 3\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    """Each has its own message."""
    with pytest.raises(ValueError, match=message):
        inception_bn(**arguments)


@pytest.fixture(scope="module")
def pth(tmp_path_factory):
    """The PyTorch port's reference weights."""
    file = tmp_path_factory.mktemp("weights") / "bn_inception.pth"
    reference.write_pth(file, reference.pytorch_tensors())
    return file


@pytest.mark.parametrize("px", [224, pytest.param(227, marks=pytest.mark.slow)])
def test_pytorch_layout_matches_the_port(px, pth):
    """All three taps, with the port's weights."""
    model = inception_bn((px, px, 3), "pytorch")
    result = load_pretrained(model, pth)
    assert (result.origin, result.mean, result.bgr) == ("pytorch", reference.PYTORCH_MEAN, True)
    with np.load(reference.folder() / "bn_inception_golden_seed7.npz") as golden:
        reference.assert_taps(model(reference.inputs(px, result.mean)), golden, f"{px}_")


def test_caffe_layout_matches_caffe(whole, tmp_path):
    """Taps and embeddings, with weights as the authors saved them after training; nothing stays random."""
    file = tmp_path / "trained.caffemodel"
    reference.write_caffemodel(file, reference.caffe_tensors())
    result = load_pretrained(whole, file)
    assert (result.origin, result.mean, result.bgr) == ("caffe", reference.CAFFE_MEAN, True)
    assert result.new_layers == result.unused == ()
    pictures = reference.inputs(227, result.mean)
    with np.load(reference.folder() / "caffe_golden_seed7.npz") as golden:
        for level, embedding in whole(pictures).items():
            np.testing.assert_allclose(embedding, golden[level], rtol=1e-4, atol=1e-4 * golden[level].max())
        trunk = inception_bn()
        assert "loss1/fc/bn/sc/fc/0" in load_pretrained(trunk, file).unused
        reference.assert_taps(trunk(pictures), golden)
