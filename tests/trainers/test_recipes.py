"""Recipes: each opens, tells what it needs, and is what the paper or the release says."""

import dataclasses
import re

import pytest

from rll_tf.data import cars196, cub200, inshop, sop
from rll_tf.training import Settings
from trainers.recipes import RECIPES, open_recipe, paper

COUNTS = {"cub200": cub200.COUNTS, "cars196": cars196.COUNTS, "sop": sop.COUNTS, "inshop": inshop.COUNTS}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_opens_and_gives_its_command(name):
    """Settings, a data set, and the exact command in the docstring."""
    module = open_recipe(name)
    if name == "folder":
        assert module.DATA is None
    else:
        assert isinstance(module.SETTINGS, Settings)
        assert module.DATA
    assert f"rll train {name}" in module.__doc__


@pytest.mark.parametrize("name", [name for name in RECIPES if name.partition("_")[0] in COUNTS])
def test_the_papers_recipes_tell_what_they_need(name):
    """Data, weights, memory and hours by the recipe's own numbers, and that nothing was measured."""
    module = open_recipe(name)
    text, settings = " ".join(module.__doc__.split()), module.SETTINGS
    train, *others = COUNTS[name.partition("_")[0]].values()
    pictures, classes = (sum(getattr(part, what) for part in others) for what in ("pictures", "classes"))
    if name.startswith("inshop"):
        classes //= 2  # its queries and its gallery are of the same classes
    assert (
        f"data: {train.pictures:,} pictures of {train.classes:,} classes, and {pictures:,} of {classes:,}"
        in text
    )
    assert f"weights of ImageNet: `{settings.weights}`" in text
    batch = settings.classes_per_batch * settings.images_per_class
    hours = batch * settings.steps / 500 / 3600
    assert f"about {hours:.1f} hours: {settings.steps:,} steps of {batch} pictures" in text
    assert re.search(r"a GPU with about \d+ GB of memory", text)
    assert "estimates, nothing was timed" in text
    assert "The paper's numbers have not been measured with it here." in text


def test_folder_tells_what_it_needs():
    """As the others do."""
    text = " ".join(open_recipe("folder").__doc__.split())
    for part in ("estimates", "* data:", "* weights:", "GB of memory", "hours", "measured with it here"):
        assert part in text


@pytest.mark.parametrize(
    ("name", "rate", "steps"), [("cub200", 1e-3, 10_000), ("cars196", 1e-2, 10_000), ("sop", 1e-2, 16_000)]
)
def test_the_papers_recipes_differ_where_the_paper_says(name, rate, steps):
    """Section 4.1; everything but the rate, its schedule and the steps is common."""
    settings = open_recipe(name).SETTINGS
    assert (settings.learning_rate, settings.steps) == (rate, steps)
    assert (settings.alpha, settings.margin, settings.temperature, settings.variant) == (
        1.2,
        0.4,
        10,
        "paper",
    )
    common = dict(learning_rate=rate, steps=steps, halve_every_steps=settings.halve_every_steps)
    assert settings == dataclasses.replace(paper.SETTINGS, **common)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith(("_2019", "_2020"))])
def test_releases_use_their_own_loss(name):
    """By the variant's name."""
    assert open_recipe(name).SETTINGS.variant == f"release{name[-4:]}"


@pytest.mark.parametrize("name", ["cub200", "cars196", "sop", "inshop"])
def test_only_the_2020_release_crops_at_random_scale_and_aspect(name):
    """Its crops alone differ from the paper's: no other random change is added."""
    paper_, release = open_recipe(name).SETTINGS, open_recipe(f"{name}_2020").SETTINGS
    assert release == dataclasses.replace(paper_, variant="release2020", scale_and_aspect=True)
    assert not paper_.scale_and_aspect
    assert not open_recipe(f"{name}_2019").SETTINGS.scale_and_aspect
