"""A run's settings and their form on the command line."""

import dataclasses
import json

import numpy as np
import pytest

from rll_tf.data import Augmentation, Catalogue, Preprocessing
from rll_tf.training import Settings
from rll_tf.training.settings import describe_settings


def test_every_kind_of_setting_can_be_replaced():
    """Whole numbers, numbers, switches, words, lists and None."""
    settings = Settings().override(
        [
            "steps=5",
            "learning_rate=1e-2",
            "margin=1",
            "mirror=true",
            "levels=low, high",
            "embedding_dim=64",
            "resize_px=None",
        ]
    )
    assert settings == dataclasses.replace(
        Settings(),
        steps=5,
        learning_rate=0.01,
        margin=1.0,
        mirror=True,
        levels=("low", "high"),
        embedding_dim=64,
    )
    assert type(settings.margin) is float


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("step=3", "unknown setting 'step'; did you mean steps"),
        ("colour=red", "unknown setting 'colour'; rll settings lists all"),
        ("steps", "form key=value; got 'steps'"),
        ("steps=1.5", "steps must be a whole number; got '1.5'"),
        ("steps=true", "steps must be a whole number; got 'true'"),
        ("margin=wide", "margin must be a number; got 'wide'"),
        ("mirror=1", "mirror must be true or false; got '1'"),
        ("learning_rate=0", "learning_rate must be above 0; got 0"),
        ("learning_rate=NaN", "learning_rate must be a number; got 'NaN'"),
        ("momentum=1", "momentum must be at least 0 and below 1; got 1"),
        ("validation_share=1", "validation_share must be at least 0 and below 1; got 1"),
        ("steps=0", "steps must be at least 1; got 0"),
        ("images_per_class=1", "images_per_class must be at least 2; got 1"),
        ("seed=-1", "seed must not be negative; got -1"),
    ],
)
def test_mistakes_say_what_must_hold_and_what_was_received(assignment, message):
    """Unknown keys, wrong kinds and values out of bounds."""
    with pytest.raises(ValueError, match=message):
        Settings().override([assignment])


def test_every_setting_is_described():
    """`rll settings` prints one line each."""
    assert set(describe_settings()) == {field.name for field in dataclasses.fields(Settings)}


def test_settings_survive_json():
    """They are kept in a run's configuration."""
    settings = Settings(levels=("high",), resize_px=60)
    assert Settings.from_dict(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


def test_settings_hand_on_what_the_pipeline_needs():
    """No resize_px means no crop; the augmentation takes the fields of its names."""
    assert Settings(input_px=40).preprocessing == Preprocessing(40, 40)
    assert Settings(input_px=40, resize_px=50).preprocessing == Preprocessing(40, 50)
    settings = Settings(mirror=True, rotate_degrees=5, zoom=0.1, stretch=0.2, shear=0.3, shift=0.4)
    assert settings.augmentation == Augmentation(True, 5, 0.1, 0.2, 0.3, 0.4)


def test_test_classes_are_set_apart_whatever_the_seed():
    """`test_share` leaves the same classes to the test under every seed and in every fold."""
    labels = np.repeat(np.arange(12), 2)
    names = tuple(map(str, range(12)))
    catalogue = Catalogue("toy", tuple(map(str, range(24))), labels, names)
    settings = Settings(test_share=0.5, validation_share=0.4)
    tests = [
        dataclasses.replace(settings, seed=seed, validation_folds=folds)
        .split(catalogue)
        .splits["test"]
        .tolist()
        for seed in (0, 1)
        for folds in (0, 3)
    ]
    assert tests[1:] == tests[:-1]
    assert len(tests[0]) == 12
