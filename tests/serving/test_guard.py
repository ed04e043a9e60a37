"""What an artefact refuses."""

import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from rll_tf.data import Preprocessing
from rll_tf.models import embedding_model
from serving.artefact import refusal
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


def refused(run, values):
    """The message with which a request is refused."""
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        run(values)
    return refusal(caught.value)


def huge(kind, at, form, sides):
    """A picture whose header claims other sides."""
    size = struct.calcsize(form)
    return WHOLE[kind][:at] + struct.pack(form, *sides) + WHOLE[kind][at + size :]


KINDS = "must be a whole JPEG, PNG, GIF, BMP or still WebP file; got "
CLAIMS = "must have at most 5000 pixels; its header claims "
SIDES = "must have at most 250 pixels along a side; its header claims "
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
        (huge("png", 16, ">II", (SIDE, SIDE)), f"{CLAIMS}10000000000"),
        (huge("bmp", 18, "<ii", (SIDE, SIDE)), f"{CLAIMS}10000000000"),
        (huge("jpeg", FRAME, ">HH", (65500, 65500)), f"{CLAIMS}4290250000"),
        (gif((65535, 65535)), f"{CLAIMS}4294836225"),
        (gif(*[(40, 40)] * 4), f"{CLAIMS}6400"),
        (huge("png", 16, ">II", (2, 251)), f"{SIDES}251"),
        (huge("png", 16, ">II", (251, 2)), f"{SIDES}251"),
    ],
)  # fmt: skip
def test_a_bad_picture_is_refused_by_its_index(functions, content, message):
    """What must hold and what was received; the next good request is answered."""
    for name in ("serving_default", "low"):
        assert refused(functions[name], [GOOD, content]).startswith(f"images[1] {message}")
    assert functions["low"]([GOOD])["embedding"].shape == (1, 8)


def test_a_picture_that_is_damaged_within_is_refused_by_the_decoder(functions):
    """Its header and its end are right; the message is the decoder's own."""
    content = bytearray(GOOD)
    content[60:400] = bytes(340)
    assert "PNG" in refused(functions["low"], [bytes(content)])


def test_empty_and_large_batches_are_refused_undecoded(functions):
    """Also where their pictures are none at all."""
    for count in (0, 4):
        images = tf.constant([b"no picture"] * count, tf.string)
        message = refused(functions["low"], images)
        assert message == f"images must hold 1 to 3 pictures; got {count}"
        message = refused(functions["pixels"], tf.zeros([count, 20, 20, 3], tf.uint8))
        assert message == f"pixels must hold 1 to 3 pictures; got {count}"


@pytest.mark.parametrize("sides", [(0, 20), (20, 0), (50, 101)])
def test_pixels_without_area_or_with_too_much_are_refused(functions, sides):
    """As the header's claim is."""
    message = refused(functions["pixels"], tf.zeros([1, *sides, 3], tf.uint8))
    assert message == (
        f"each of pixels must have 1 to 5000 pixels; got a height of {sides[0]} and a width of {sides[1]}"
    )


@pytest.mark.parametrize("shape", [(1, 251, 2), (1, 2, 251), (1, 6, 251)])
def test_pixels_with_a_longer_side_are_refused(functions, shape):
    """Resizing the other side would make more of them than the limit."""
    message = refused(functions["pixels"], tf.zeros([*shape, 3], tf.uint8))
    assert message == (
        "each of pixels must have at most 250 pixels along a side; "
        f"got a height of {shape[1]} and a width of {shape[2]}"
    )


def test_many_thin_pixels_are_refused(functions):
    """They are resized together; those that are not thin, and those that do not grow, are answered."""
    message = refused(functions["pixels"], tf.zeros([2, 4, 126, 3], tf.uint8))
    assert message == (
        "pixels with a side below 5 must have longer sides of at most 250 together; "
        "got 2 pictures with a height of 4 and a width of 126"
    )
    for shape in [(2, 4, 125), (1, 1, 250), (2, 5, 250), (3, 1, 20)]:
        answer = functions["pixels"](tf.zeros([*shape, 3], tf.uint8))["embedding"]
        assert answer.shape == (shape[0], 8)


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

prepare(png(300, 300))
before = peak_mb()
try:
    prepare(png(int(sys.argv[1]), 1))
    print("answered", peak_mb() - before)
except tf.errors.InvalidArgumentError:
    print("refused", peak_mb() - before)
"""


@pytest.mark.parametrize(("width", "outcome", "most_mb"), [(1_000_000, "refused", 100),
                                                           (250_000, "answered", 2500)])  # fmt: skip
def test_a_thin_picture_takes_no_more_memory_than_the_largest(width, outcome, most_mb):
    """One row at the paper's size and the default limits; 64 million pixels take about 1,000 MB."""
    command = [sys.executable, "-c", MEASURES, str(width)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told, added_mb = process.stdout.split()
    assert told == outcome
    assert int(added_mb) < most_mb


def test_the_largest_request_is_answered(functions):
    """Limits include their own values."""
    pixels = np.random.default_rng(0).integers(0, 256, [3, 50, 100, 3], np.uint8)
    assert functions["pixels"](pixels)["embedding"].shape == (3, 8)
    images = [tf.io.encode_png(picture) for picture in pixels]
    np.testing.assert_allclose(
        functions["serving_default"](images)["embedding"], functions["pixels"](pixels)["embedding"], atol=1e-6
    )


@pytest.mark.parametrize("limits", [{"max_pixels": 0}, {"max_batch": -1}])
def test_limits_are_at_least_one(limits):
    """An artefact that answers nothing is a mistake."""
    with pytest.raises(ValueError, match="must be at least 1; got"):
        Limits(**limits)
