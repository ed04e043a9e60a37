"""What an artefact rejects."""

import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from rll_tf.data import Preprocessing
from rll_tf.models import embedding_model
from serving.client import parse_rejection
from serving.guard import Limits
from serving.signatures import signatures
from tests.conftest import ROOT
from tests.data.test_image_header import WHOLE, animated_webp, gif

LIMITS = Limits(max_pixels=5000, max_batch=3)
GOOD = WHOLE["png"]


@pytest.fixture(scope="module")
def functions():
    """The signatures of a small model, as graphs, with small limits."""
    model = embedding_model("convnet", ["low"], 8, input_shape=(16, 16, 3))
    found = signatures(model, Preprocessing(16, 20), LIMITS)
    return {name: tf.function(run, input_signature=[spec]) for name, (run, spec) in found.items()}


def rejected(run, values):
    """The index of the picture that is rejected, and the reason."""
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        run(values)
    return parse_rejection(str(caught.value.message))


def huge(kind, at, form, sides):
    """A picture whose header has other sides."""
    size = struct.calcsize(form)
    return WHOLE[kind][:at] + struct.pack(form, *sides) + WHOLE[kind][at + size :]


KINDS = "must be a whole JPEG, PNG, GIF, BMP or still WebP file; got "
PIXELS = "must have at most 5000 pixels; by its header it has "
SIDES = "must have at most 250 pixels along a side; by its header it has "
FRAME = WHOLE["jpeg"].index(b"\xff\xc0") + 5
SIDE = 100_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f"{KINDS}0 bytes"),
        (b"<html>not found</html>", f"{KINDS}22 bytes that begin with 3c 68 74 6d 6c 3e 6e 6f"),
        (WHOLE["png"][:-20], f"{KINDS}{len(WHOLE['png']) - 20} bytes that begin with 89 50 4e 47"),
        (WHOLE["jpeg"][:-20], f"{KINDS}{len(WHOLE['jpeg']) - 20} bytes that begin with ff d8"),
        (WHOLE["gif"][:-20], f"{KINDS}{len(WHOLE['gif']) - 20} bytes that begin with 47 49 46"),
        (WHOLE["bmp"][:-20], f"{KINDS}{len(WHOLE['bmp']) - 20} bytes that begin with 42 4d"),
        (WHOLE["lossy webp"][:-20], f"{KINDS}{len(WHOLE['lossy webp']) - 20} bytes that begin with 52 49"),
        (animated_webp(), f"{KINDS}{len(animated_webp())} bytes that begin with 52 49 46 46"),
        (huge("png", 16, ">II", (SIDE, SIDE)), f"{PIXELS}10000000000"),
        (huge("bmp", 18, "<ii", (SIDE, SIDE)), f"{PIXELS}10000000000"),
        (huge("jpeg", FRAME, ">HH", (65500, 65500)), f"{PIXELS}4290250000"),
        (gif((65535, 65535)), f"{PIXELS}4294836225"),
        (gif(*[(40, 40)] * 4), f"{PIXELS}6400"),
        (huge("png", 16, ">II", (2, 251)), f"{SIDES}251"),
        (huge("png", 16, ">II", (251, 2)), f"{SIDES}251"),
    ],
)  # fmt: skip
def test_a_bad_picture_is_rejected_by_its_index(functions, content, message):
    """What must hold and what was received; the next good request is accepted."""
    index, reason = rejected(functions["low"], [GOOD, content])
    assert index == 1
    assert reason.startswith(message)
    assert functions["low"]([GOOD])["embedding"].shape == (1, 8)


def test_all_levels_together_reject_as_one_does(functions):
    """By the same checks."""
    for content in (b"", huge("png", 16, ">II", (SIDE, SIDE))):
        assert rejected(functions["serving_default"], [GOOD, content]) == rejected(
            functions["low"], [GOOD, content]
        )


def test_a_picture_that_is_damaged_within_is_rejected_by_the_decoder(functions):
    """Its header and its end are right; the message is the decoder's own."""
    content = bytearray(GOOD)
    content[60:400] = bytes(340)
    index, reason = rejected(functions["low"], [bytes(content)])
    assert index is None
    assert "PNG" in reason


def test_empty_and_large_batches_are_rejected_undecoded(functions):
    """Also where their pictures are none at all."""
    for count in (0, 4):
        images = tf.constant([b"no picture"] * count, tf.string)
        message = rejected(functions["low"], images)
        assert message == (None, f"images must hold 1 to 3 pictures; got {count}")
        message = rejected(functions["pixels"], tf.zeros([count, 20, 20, 3], tf.uint8))
        assert message == (None, f"pixels must hold 1 to 3 pictures; got {count}")


@pytest.mark.parametrize("sides", [(0, 20), (20, 0), (50, 101)])
def test_pixels_without_area_or_with_too_much_are_rejected(functions, sides):
    """As files are by their headers."""
    _, message = rejected(functions["pixels"], tf.zeros([1, *sides, 3], tf.uint8))
    assert message == (
        f"each of pixels must have 1 to 5000 pixels; got a height of {sides[0]} and a width of {sides[1]}"
    )


@pytest.mark.parametrize("shape", [(1, 251, 2), (1, 2, 251), (1, 6, 251)])
def test_pixels_with_a_longer_side_are_rejected(functions, shape):
    """Resizing the other side would make more of them than the limit."""
    _, message = rejected(functions["pixels"], tf.zeros([*shape, 3], tf.uint8))
    assert message == (
        "each of pixels must have at most 250 pixels along a side; "
        f"got a height of {shape[1]} and a width of {shape[2]}"
    )


def test_many_thin_pixels_are_rejected(functions):
    """They are resized together; those that are not thin, and those that do not grow, are accepted."""
    _, message = rejected(functions["pixels"], tf.zeros([2, 4, 126, 3], tf.uint8))
    assert message == (
        "pixels with a side below 5 must have longer sides of at most 250 together; "
        "got 2 pictures with a height of 4 and a width of 126"
    )
    for shape in [(2, 4, 125), (1, 1, 250), (2, 5, 250), (3, 1, 20)]:
        embedding = functions["pixels"](tf.zeros([*shape, 3], tf.uint8))["embedding"]
        assert embedding.shape == (shape[0], 8)


MEASURES = """
import io, resource, sys
import numpy as np, tensorflow as tf
from PIL import Image
from rll_tf.data import Preprocessing
from serving.guard import Limits
preprocessing, limits = Preprocessing(227, 256), Limits()

@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def prepare(encoded):
    return preprocessing.prepare(limits.check_encoded(encoded, tf.constant(0), preprocessing.resize_px))

def png(width, height):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros([height, width], np.uint8)).save(buffer, format="PNG")
    return tf.constant(buffer.getvalue())

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def added_mb(picture):
    before = peak_mb()
    try:
        prepare(picture)
        print("accepted", peak_mb() - before)
    except tf.errors.InvalidArgumentError:
        print("rejected", peak_mb() - before)

prepare(png(300, 300))
added_mb(png(1_000_000, 1))
added_mb(png(250_000, 1))
"""


@pytest.mark.slow  # rows of SIDES above are the default test
def test_a_thin_picture_takes_no_more_memory_than_the_largest():
    """One row at the paper's size and the default limits; 64 million pixels take about 1,000 MB."""
    process = subprocess.run(
        [sys.executable, "-c", MEASURES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (too_long, too_long_mb), (longest, longest_mb) = (line.split() for line in process.stdout.splitlines())
    assert (too_long, longest) == ("rejected", "accepted")
    assert int(too_long_mb) < 100
    assert int(longest_mb) < 2500


def test_the_largest_request_is_accepted(functions):
    """Limits include their own values."""
    pixels = np.random.default_rng(0).integers(0, 256, [3, 50, 100, 3], np.uint8)
    assert functions["pixels"](pixels)["embedding"].shape == (3, 8)
    images = [tf.io.encode_png(picture) for picture in pixels]
    np.testing.assert_allclose(
        functions["serving_default"](images)["embedding"], functions["pixels"](pixels)["embedding"], atol=1e-6
    )


@pytest.mark.parametrize("limits", [{"max_pixels": 0}, {"max_batch": -1}])
def test_limits_are_at_least_one(limits):
    """An artefact that accepts nothing is a mistake."""
    with pytest.raises(ValueError, match="must be at least 1; got"):
        Limits(**limits)
