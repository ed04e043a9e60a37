"""The picture of ranked lists."""

import sys

import numpy as np
import pytest
from PIL import Image

from rll_tf.evaluation import draw_ranked_lists
from rll_tf.evaluation.ranked_lists import FONTS, QUERY, RIGHT, WRONG, printable


def picture(height, width, *channels):
    """A picture of seeded noise."""
    return np.random.default_rng(height).integers(0, 60, (height, width, *channels), dtype=np.uint8)


def read(path):
    """The file's pixels."""
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))


def count(path, colour):
    """How many of the file's pixels have exactly this colour."""
    pixels = read(path)
    return int((pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=2).sum())


def draw(path, correct, **options):
    """Two queries with as many neighbours as there are marks, of assorted kinds and sizes."""
    kinds = [picture(28, 28), picture(20, 45, 3), picture(300, 90, 1), picture(64, 64) > 30]
    return draw_ranked_lists(
        path, [kinds[0], kinds[1]], [kinds[: len(row)] for row in correct], correct, **options
    )


def test_right_ones_are_green_and_wrong_ones_red(tmp_path):
    """Turning one mark from wrong to right moves a frame's worth of pixels from red to green."""
    one = draw(tmp_path / "one.png", [[True, False], [False, False]])
    two = draw(tmp_path / "two.png", [[True, True], [False, False]])
    frame_px = 2 * (135 + 60) * 4  # the second picture, 20 x 45, enlarged three times
    assert count(two, RIGHT) - count(one, RIGHT) > frame_px
    assert count(one, WRONG) - count(two, WRONG) > frame_px
    assert count(one, QUERY) == count(two, QUERY) > frame_px


def test_pixels_of_tiny_pictures_stay_crisp(tmp_path):
    """An 8 x 8 picture is found in the file enlarged 18 times, pixel for pixel."""
    tiny = picture(8, 8, 3)
    path = draw_ranked_lists(tmp_path / "tiny.png", [tiny], [[picture(9, 9)]], [[True]])
    page = read(path)
    enlarged = np.kron(tiny, np.ones((18, 18, 1), np.uint8))
    assert any(
        (page[y : y + 144, x : x + 144] == enlarged)[8:-8, 8:-8].all()
        for y, x in zip(*np.nonzero((page == tiny[0, 0]).all(axis=2)), strict=True)
        if y + 144 <= len(page) and x + 144 <= page.shape[1]
    )


def test_odd_captions_do_not_warn(tmp_path):
    """Letters that the font lacks, dollar signs, control characters, undecodable names, endless ones."""
    captions = [["日本語 🐦", "$x^2$ $"], ["a\nb\x00", "\udce9" + "W" * 300]]
    draw(
        tmp_path / "odd.png", [[1, 0], [0, 1]], distances=[[0.0, 1e-9], [1.5, 2]], query_captions=["", "$"],
        neighbour_captions=captions, title="日" * 200, subtitle="$\\frac",
    )  # fmt: skip


def test_captions_are_shortened_in_their_middle():
    """The beginning and the end tell class names apart."""
    font = FONTS / "DejaVuSans.ttf"
    assert printable("short", font, 7, 150) == "short"
    long = printable("Early_Aramaic/character12", font, 7, 150)
    assert long.startswith("Early")
    assert long.endswith("12")
    assert "…" in long
    assert printable("日 ä\n ж", font, 7) == "\ufffd ä ж"


def test_lists_may_be_of_different_lengths(tmp_path):
    """Four neighbours above, one below; without distances and captions the page is lower."""
    plain = draw(tmp_path / "plain.png", [[1, 0, 1, 1], [0]])
    more = draw(
        tmp_path / "more.png", [[1, 0, 1, 1], [0]], distances=[[1, 2, 3, 4], [5]], query_captions=["a", "b"]
    )
    assert len(read(plain)) < len(read(more))


def test_no_global_state_is_touched(tmp_path):
    """Pyplot is not imported, and equal input gives equal bytes."""
    before = "matplotlib.pyplot" in sys.modules
    first, second = (draw(tmp_path / name, [[1], [0]]).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert ("matplotlib.pyplot" in sys.modules) == before


@pytest.mark.parametrize(
    ("images", "correct", "options", "message"),
    [
        ([], [], {}, r"at least one query with a neighbour: got none"),
        (
            [picture(4, 4)] * 2,
            [[1], [0, 1]],
            {},
            r"correct must have the neighbours' lengths \[1, 1\]: got \[1, 2\]",
        ),
        ([picture(4, 4)] * 2, [[1], [0]], {"distances": [[1.0]]}, r"distances must have .*: got \[1\]"),
        ([picture(4, 4)] * 2, [[1], [0]], {"query_captions": ["a"]}, r"2 lists, 2 queries, 1 captions"),
    ],
)
def test_bad_arguments_are_named(tmp_path, images, correct, options, message):
    """An error says what must hold and what was received, and no file appears."""
    with pytest.raises(ValueError, match=message):
        draw_ranked_lists(tmp_path / "x.png", images, [[image] for image in images], correct, **options)
    assert not list(tmp_path.iterdir())
