"""What an artefact rejects."""

import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from rll_tf.data import Preprocessing
from rll_tf.models import embedding_model
from serving import guard as guard_module
from serving.client import parse_rejection
from serving.guard import BYTES_A_PIXEL, Limits, one_at_a_time
from serving.signatures import signatures
from tests.conftest import ROOT
from tests.data.test_image_header import WHOLE, animated_webp, gif

LIMITS = Limits(max_pixels=20_000, max_batch=3)
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
PIXELS = "must have at most 20000 pixels; by its header it has "
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
        (gif(*[(100, 80)] * 4), f"{PIXELS}32000"),
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


MEASURES = """
import concurrent.futures, io, sys
import numpy as np, tensorflow as tf
from PIL import Image
from rll_tf.data import Preprocessing
from rll_tf.models import embedding_model
from serving.guard import Limits
from serving.signatures import signatures
model = embedding_model("convnet", ["low"], 8, input_shape=(227, 227, 3))
run, spec = signatures(model, Preprocessing(227, 256), Limits())["low"]
@tf.function(input_signature=[spec])
def embed(images):
    return run(images)

def file(width, height, form, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.new(mode, [width, height]).save(buffer, format=form, **options)
    return buffer.getvalue()

def peak_mb():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024

def added_mb(pictures, callers=1):
    before = peak_mb()
    try:
        with concurrent.futures.ThreadPoolExecutor(callers) as threads:
            list(threads.map(lambda _: embed(pictures), range(callers)))
        print("accepted", peak_mb() - before)
    except tf.errors.InvalidArgumentError:
        print("rejected", peak_mb() - before)

embed([file(300, 300, "PNG")])
added_mb([file(1_000_000, 1, "PNG")])
added_mb([file(62_500, 1, "PNG")])
added_mb([file(62_500, 1024, "PNG")])
added_mb([file(8000, 8000, "JPEG", "CMYK", progressive=True)] * 2, callers=4)
"""


@pytest.mark.slow  # rows of SIDES above, and that the graph locks, are the default tests
def test_requests_take_the_memory_of_one_largest_picture():
    """At the paper's size and the default limits: long ones, and eight of the largest in four requests."""
    process = subprocess.run(
        [sys.executable, "-c", MEASURES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    results, added = zip(*(line.split() for line in process.stdout.splitlines()), strict=True)
    assert results == ("rejected", "accepted", "accepted", "accepted")
    most = Limits().max_pixels * BYTES_A_PIXEL // 2**20
    assert int(added[0]) < 100
    assert [mb for mb in map(int, added) if mb > most] == []


def test_large_pictures_are_decoded_one_at_a_time():
    """However many runs there are, in a graph that a session runs; a run that fails leaves the lock free."""
    running, most, lock = [0], [0], threading.Lock()

    def work(value):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        if value < 0:
            with lock:
                running[0] -= 1
            raise ValueError("no picture")
        with lock:
            running[0] -= 1
        return value

    graph = tf.Graph()
    with graph.as_default():
        given = tf.compat.v1.placeholder(tf.float32, [])
        locked = tf.function(
            lambda value: one_at_a_time(value > -9, lambda: tf.numpy_function(work, [value], tf.float32))
        )
        result = locked(given)
    with tf.compat.v1.Session(graph=graph) as session, ThreadPoolExecutor(8) as callers:
        values = [-1 if number % 5 == 0 else number for number in range(40)]
        calls = [callers.submit(session.run, result, {given: value}) for value in values]
        for value, call in zip(values, calls, strict=True):
            if value < 0:
                with pytest.raises(tf.errors.InvalidArgumentError, match="no picture"):
                    call.result()
            else:
                assert call.result() == value
    assert most == [1]


@pytest.mark.parametrize(("side", "waits"), [(1448, False), (1449, True)])
def test_only_large_pictures_wait(monkeypatch, side, waits):
    """Above two million pixels, by the header."""
    calls = []

    def noted(waits, call):
        tf.py_function(lambda waits: calls.append(bool(waits)), [waits], [])
        return call()

    monkeypatch.setattr(guard_module, "one_at_a_time", noted)
    picture = tf.io.encode_png(tf.zeros([side, side, 3], tf.uint8))
    tf.function(lambda image: Limits().prepare(image, tf.constant(0), Preprocessing(16, 20)))(picture)
    assert calls == [waits]


def test_the_largest_request_is_accepted(functions):
    """Limits include their own values."""
    pixels = np.random.default_rng(0).integers(0, 256, [3, 20, 20, 3], np.uint8)
    images = [tf.io.encode_png(picture) for picture in pixels]
    np.testing.assert_allclose(
        functions["serving_default"](images)["embedding"], functions["pixels"](pixels)["embedding"], atol=1e-6
    )
    largest = tf.io.encode_png(tf.zeros([200, 100, 3], tf.uint8))
    longest = tf.io.encode_png(tf.zeros([250, 80, 3], tf.uint8))
    assert functions["low"]([largest, longest, GOOD])["embedding"].shape == (3, 8)


@pytest.mark.parametrize("limits", [{"max_pixels": 0}, {"max_batch": -1}])
def test_limits_are_at_least_one(limits):
    """An artefact that accepts nothing is a mistake."""
    with pytest.raises(ValueError, match="must be at least 1; got"):
        Limits(**limits)
