"""Recipes: each opens, and is what the paper or the release says."""

import dataclasses

import pytest

from rll_tf.data import DATASETS
from rll_tf.losses import LOSSES
from rll_tf.training import Settings
from trainers import cli
from trainers.recipes import RECIPES

BENCHMARKS = ("cub200", "cars196", "sop", "inshop")


def settings_of(name):
    """A recipe's settings."""
    return Settings(**RECIPES[name].settings)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_opens(name):
    """Its settings can be replaced; its data set is in `rll datasets`, under the path that this shows."""
    recipe = RECIPES[name]
    assert settings_of(name).override(["steps=1"]).steps == 1
    assert recipe.about
    if name == "folder":
        assert recipe.data is None
    else:
        assert recipe.data in DATASETS
    if name.partition("_")[0] in BENCHMARKS:
        assert recipe.data == name.partition("_")[0]


@pytest.mark.parametrize(
    ("name", "rate", "steps"), [("cub200", 1e-3, 10_000), ("cars196", 1e-2, 10_000), ("sop", 1e-2, 16_000)]
)
def test_the_papers_recipes_are_those_of_section_4_1(name, rate, steps):
    """The rate and the steps differ, everything else is common."""
    settings = settings_of(name)
    assert (settings.learning_rate, settings.steps) == (rate, steps)
    assert (settings.alpha, settings.margin, settings.temperature) == (1.2, 0.4, 10)
    assert (settings.classes_per_batch, settings.images_per_class) == (60, 3)
    assert (settings.momentum, settings.weight_decay, settings.new_layers_rate) == (0.9, 1e-5, 10)
    assert (settings.variant, settings.input_px, settings.resize_px) == ("paper", 227, 256)
    assert settings.weights == "weights/googlenet_bn.caffemodel"
    assert settings.validation_share == 0


@pytest.mark.parametrize("name", BENCHMARKS)
def test_releases_differ_in_loss_and_crops(name):
    """2019: the loss, and for CUB its own numbers; 2020: the loss and crops at random scale and aspect."""
    paper = settings_of(name)
    changes = dict(classes_per_batch=20, alpha=1.4, margin=0.2, weight_decay=2e-5) if name == "cub200" else {}
    assert settings_of(f"{name}_2019") == dataclasses.replace(paper, variant="release2019", **changes)
    assert settings_of(f"{name}_2020") == dataclasses.replace(
        paper, variant="release2020", scale_and_aspect=True
    )


def test_the_list_of_recipes(capfd):
    """A line each: what data, which backbone, from what weights."""
    assert cli.run(["recipes"]) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert [line[0] for line in lines[1:-1]] == list(RECIPES)
    by_name = {line[0]: line for line in lines}
    assert by_name["convnet"][1:4] == ["glyphs", "convnet", "random"]
    assert by_name["sop_2020"][1:4] == ["sop", "inception_bn", "weights/googlenet_bn.caffemodel"]


def test_the_list_of_settings(capfd):
    """A line each, with a value that --set takes and an explanation; defaults, or a recipe's."""
    names = [field.name for field in dataclasses.fields(Settings)]
    for words, expected in [([], Settings()), (["cub200_2020"], settings_of("cub200_2020"))]:
        assert cli.run(["settings", *words]) == 0
        rows = [line.split(maxsplit=2) for line in capfd.readouterr().out.splitlines()[1:-1]]
        losses = [f"loss={name}" for name in LOSSES]
        assert [row[0] for row in rows] == names + losses
        rows = [row for row in rows[: len(names)] if row[0] != "loss_parameters"]  # set one by one
        assert Settings().override(f"{name}={value}" for name, value, _ in rows) == expected
