"""Pictures of any kind, made ready to be shown."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from rll_tf.evaluation.pictures import as_picture, data_uri, fit


def ramp(*shape):
    """Pixels that all differ, so that a flip or a mixed-up axis shows."""
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)


def test_every_kind_of_picture_becomes_rgb():
    """Grey, grey with an axis, RGB, bits, floats and Pillow's pictures keep their pixels."""
    grey, colour = ramp(3, 5), ramp(3, 5, 3)
    as_rgb = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(np.asarray(as_picture(grey)), as_rgb)
    np.testing.assert_array_equal(np.asarray(as_picture(grey[:, :, None])), as_rgb)
    np.testing.assert_array_equal(np.asarray(as_picture(colour)), colour)
    np.testing.assert_array_equal(np.asarray(as_picture(colour / 255)), colour)
    np.testing.assert_array_equal(np.asarray(as_picture(grey > 7))[:, :, 0], (grey > 7) * 255)
    np.testing.assert_array_equal(np.asarray(as_picture(Image.fromarray(grey))), as_rgb)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((3, 5, 4), np.uint8), r"must be \[h, w\].*: got shape \(3, 5, 4\)"),
        (np.zeros((0, 5), np.uint8), r"got shape \(0, 5\)"),
        (np.zeros(5, np.uint8), r"got shape \(5,\)"),
        (np.full((3, 5), 7.0), r"must be 0 to 1: got 7 to 7"),
        (np.full((3, 5), np.nan), r"must be 0 to 1: got nan to nan"),
        (np.zeros((3, 5), np.int64), r"got dtype int64"),
    ],
)
def test_what_is_no_picture_is_named(pixels, message):
    """An error says what must hold and what was received."""
    with pytest.raises(ValueError, match=message):
        as_picture(pixels)


def test_a_small_picture_is_enlarged_crisply():
    """By a whole factor: every pixel becomes a square, no colour is invented."""
    picture = as_picture(ramp(5, 10))
    large = fit(picture, 36)
    np.testing.assert_array_equal(
        np.asarray(large), np.kron(np.asarray(picture), np.ones((3, 3, 1), np.uint8))
    )


@pytest.mark.parametrize(
    ("height", "width", "size"), [(300, 100, (12, 36)), (20, 30, (36, 24)), (2, 900, (36, 1))]
)
def test_a_large_picture_keeps_its_aspect_ratio(height, width, size):
    """The longer side fits, the shorter one follows and never vanishes."""
    assert fit(as_picture(np.zeros((height, width), np.uint8)), 36).size == size


def test_a_picture_travels_inside_the_page():
    """Small ones without loss, large ones as JPEG."""
    small = as_picture(ramp(9, 7))
    head, _, body = data_uri(small).partition(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))), np.asarray(small)
    )
    assert data_uri(small.resize((200, 100))).startswith("data:image/jpeg;base64,")
