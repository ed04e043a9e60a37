"""The drawn letters: the same everywhere, readable, and classed as a reader would class them."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

import numpy as np
import pytest
from PIL import features

from rll_tf.data import glyphs as module
from rll_tf.data.catalogue import Catalogue
from rll_tf.data.glyphs import FONTS, common_letters, glyphs, letter_classes

# Drawn under NumPy 2.2.6, Pillow 12.3.0 (with its FreeType 2.14.3) and matplotlib 3.10.9.
# Regenerate with: .venv/bin/python tests/data/test_glyphs.py
GOLDEN_VERSIONS = {"numpy": "2.2.6", "pillow": "12.3.0", "matplotlib": "3.10.9", "freetype2": "2.14.3"}
GOLDEN_SHA256 = "db05bde9e1d0bb003c804f2088129085d82dbf078c3a064362a9749363984396"


def digest(catalogue: Catalogue) -> str:
    """The SHA-256 of pixels, labels and splits."""
    assert catalogue.pixels is not None
    sha = hashlib.sha256(catalogue.pixels.tobytes())
    sha.update(catalogue.labels.astype("<i8").tobytes())
    for name in ("train", "validation", "test"):
        sha.update(name.encode() + catalogue.splits[name].astype("<i8").tobytes())
    return sha.hexdigest()


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """The data set as everybody sees it."""
    return glyphs()


@pytest.fixture(scope="module")
def other_seed() -> Catalogue:
    """The data set under another seed."""
    return glyphs(seed=1)


@pytest.fixture(scope="module")
def likeness() -> np.ndarray:
    """[16, 330, 330]: how alike the letters are in every font."""
    letters = common_letters()
    fonts = [module._font(name) for name in FONTS]
    return np.stack([module._likeness([module._draw(font, letter) for letter in letters]) for font in fonts])


def class_of(catalogue: Catalogue, letter: str) -> str:
    """The name of the one class that `letter` belongs to."""
    (name,) = (name for name in catalogue.class_names if letter in name.split(" "))
    return name


def test_the_pinned_versions_draw_the_golden_bytes(catalogue: Catalogue) -> None:
    """Pixels, labels and splits are those that the pinned versions draw on every machine."""
    names = ("numpy", "pillow", "matplotlib")
    installed = {**{name: version(name) for name in names}, "freetype2": features.version("freetype2")}
    if installed != GOLDEN_VERSIONS:
        pytest.skip(f"the golden bytes were drawn by {GOLDEN_VERSIONS}, installed is {installed}")
    assert digest(catalogue) == GOLDEN_SHA256


def test_the_same_seed_draws_the_same_bytes(catalogue: Catalogue) -> None:
    """Drawing again changes nothing."""
    again = glyphs(seed=0)
    assert digest(again) == digest(catalogue)
    assert again.paths == catalogue.paths


def test_another_seed_draws_other_pictures_of_the_same_classes(
    catalogue: Catalogue, other_seed: Catalogue
) -> None:
    """A seed decides pixels and splits, not what a class is nor how many classes a split has."""
    assert other_seed.class_names == catalogue.class_names
    np.testing.assert_array_equal(other_seed.labels, catalogue.labels)
    assert not (other_seed.pixels == catalogue.pixels).all(axis=(1, 2, 3)).any()
    for name in catalogue.splits:
        ours, theirs = catalogue.select(name), other_seed.select(name)
        assert ours.class_count == theirs.class_count
        assert set(ours.labels) != set(theirs.labels)


def test_pictures_are_grey_squares(catalogue: Catalogue) -> None:
    """[n, 32, 32, 1] uint8, one int64 label and one distinct readable name a picture."""
    assert catalogue.pixels is not None
    assert catalogue.pixels.shape == (len(catalogue), 32, 32, 1)
    assert catalogue.pixels.dtype == np.uint8
    assert catalogue.labels.dtype == np.int64
    assert len(set(catalogue.paths)) == len(catalogue)
    for path, label in zip(catalogue.paths, catalogue.labels, strict=True):
        folder, name, font = path.split("/")
        code_point, letter = name.split(" ")
        assert (folder, code_point) == ("glyphs", f"U+{ord(letter):04X}")
        assert letter in catalogue.class_names[label].split(" ")
        assert font in FONTS


def test_every_picture_shows_a_whole_letter(catalogue: Catalogue) -> None:
    """Dark ink on white; at most 2% of a letter's ink is on the border, and 98% of letters keep off it."""
    assert catalogue.pixels is not None
    ink = 255 - catalogue.pixels[..., 0].astype(np.int64)
    total = ink.sum(axis=(1, 2))
    border = total - ink[:, 1:-1, 1:-1].sum(axis=(1, 2))
    assert ink.max(axis=(1, 2)).min() > 128
    assert (total / (255 * 32 * 32)).min() > 0.01
    assert (total / (255 * 32 * 32)).max() < 0.5
    assert (border / total).max() < 0.02
    assert (border > 0).mean() < 0.02


def test_no_font_gives_a_placeholder() -> None:
    """In every font all letters are distinct enough not to be one replacement box."""
    letters = common_letters()
    for name in FONTS:
        font = module._font(name)
        missing = module._draw(font, "\U000f0000").tobytes()  # a private code point: no font has it
        drawings = [module._draw(font, letter) for letter in letters]
        assert all(min(drawing.size) > 0 for drawing in drawings)
        assert missing not in {drawing.tobytes() for drawing in drawings}


def test_splits_share_no_class_and_cover_everything(catalogue: Catalogue) -> None:
    """Half of the classes are for test, a fifth of the others for validation."""
    counts = {name: catalogue.select(name).class_count for name in ("train", "validation", "test")}
    assert counts == {"train": 85, "validation": 21, "test": 107}
    assert sum(counts.values()) == catalogue.class_count == len(catalogue.class_names)
    everything = np.concatenate(list(catalogue.splits.values()))
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(catalogue)))


def test_a_class_has_up_to_one_picture_a_font(catalogue: Catalogue) -> None:
    """No class outweighs another by its members, and every class has enough for K = 3."""
    counts = np.bincount(catalogue.labels)
    assert counts.max() == len(FONTS)
    assert counts.min() >= 3
    assert (counts == len(FONTS)).mean() > 0.9


@pytest.mark.parametrize("alike", ["AΑА", "cCсС", "oOοΟоО", "sSѕЅ", "pрρ", "xXхХ", "IlІΙ", "TТΤ", "ΠПп"])
def test_look_alikes_are_one_class(catalogue: Catalogue, alike: str) -> None:
    """Twins of other scripts and small letters shaped like their capitals are together."""
    assert len({class_of(catalogue, letter) for letter in alike}) == 1


@pytest.mark.parametrize(
    "distinct",
    ["AB", "pq", "bd", "bp", "un", "EF", "ij", "il", "Co", "ce", "nm", "ИN", "AΛ", "мш"],
)
def test_distinct_letters_are_distinct_classes(catalogue: Catalogue, distinct: str) -> None:
    """Letters that a reader tells apart are not merged, mirrored ones included."""
    assert len({class_of(catalogue, letter) for letter in distinct}) == len(distinct)


def test_classes_stay_small(catalogue: Catalogue) -> None:
    """Look-alikes do not chain into monsters: the rings are twelve, all else at most six."""
    sizes = np.bincount([len(name.split(" ")) for name in catalogue.class_names])
    assert {size: count for size, count in enumerate(sizes) if count} == {
        1: 145,
        2: 44,
        3: 14,
        4: 3,
        5: 5,
        6: 1,
        12: 1,
    }
    assert class_of(catalogue, "O") == "O o ɵ ʘ Θ Ο θ ο О о Ѳ ѳ"


def test_no_threshold_hangs_on_a_rounding_error(likeness: np.ndarray) -> None:
    """No two letters correlate so near a threshold that another machine could decide otherwise."""
    pairs = np.triu_indices(likeness.shape[1], k=1)
    classes = letter_classes(likeness[0])
    other_class = classes[pairs[0]] != classes[pairs[1]]
    assert np.abs(likeness[0][pairs] - module._SAME_LETTER).min() > 1e-4
    assert np.abs(likeness[:, pairs[0], pairs[1]][:, other_class] - module._SAME_DRAWING).min() > 1e-5


def test_no_picture_shows_another_classes_letter(catalogue: Catalogue, likeness: np.ndarray) -> None:
    """Within a font, no drawing in use coincides with a drawing of another class in use."""
    index = {letter: i for i, letter in enumerate(common_letters())}
    drawn = np.array([index[path.split("/")[1].split(" ")[1]] for path in catalogue.paths])
    fonts = np.array([FONTS.index(path.split("/")[2]) for path in catalogue.paths])
    for font in range(len(FONTS)):
        letters, labels = drawn[fonts == font], catalogue.labels[fonts == font]
        coincide = likeness[font][np.ix_(letters, letters)] > module._SAME_DRAWING
        assert not (coincide & (labels[:, np.newaxis] != labels)).any()


def test_chains_of_look_alikes_are_one_class() -> None:
    """A look-alike's look-alike belongs to the class, however long the chain and whatever its order."""
    likeness = np.eye(6)
    for i, j in ((0, 4), (4, 2), (2, 5), (1, 3)):
        likeness[i, j] = likeness[j, i] = 0.91
    likeness[0, 1] = likeness[1, 0] = 0.9  # not above the threshold
    np.testing.assert_array_equal(letter_classes(likeness), [0, 1, 0, 1, 0, 0])


if __name__ == "__main__":
    print(digest(glyphs()))
