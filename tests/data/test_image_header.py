"""How many pixels a file's header promises, and how long a side."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from rll_tf.data import header_pixels
from rll_tf.data.decode import decode

HUGE = 100_000
in_graph = tf.function(header_pixels, input_signature=[tf.TensorSpec([], tf.string)])


def saved(form, size=(41, 30), mode="RGB", **options):
    """A file's bytes: noise of width × height."""
    noise = np.random.default_rng(0).integers(0, 256, [size[1], size[0], 3], np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, format=form, **options)
    return buffer.getvalue()


def gif(*frames, screen=(1, 1)):
    """A GIF's bytes whose frames, each (width, height), hold no pixels."""
    content = b"GIF89a" + struct.pack("<HHBBB", *screen, 0, 0, 0)
    content += b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
    for width, height in frames:
        # A local table of 2 colours, the least code size, one sub-block.
        content += b"," + struct.pack("<HHHHB", 0, 0, width, height, 0x80) + bytes(6) + b"\x02\x01\x44\x00"
    return content + b";"


def animated_webp():
    """A WebP's bytes of three frames."""
    frames = [Image.new("RGB", (31, 20), (value, 9, 9)) for value in (0, 99, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format="WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def header(content):
    """Pixels and whether the file looks whole."""
    pixels, _, is_whole = in_graph(tf.constant(content))
    return int(pixels), bool(is_whole)


def longer_side(content):
    """In pixels."""
    return int(in_graph(tf.constant(content))[1])


WHOLE = {
    "jpeg": saved("JPEG"),
    "progressive jpeg": saved("JPEG", progressive=True),
    "grey jpeg": saved("JPEG", mode="L"),
    "png": saved("PNG"),
    "png with a palette": saved("PNG", mode="P"),
    "gif": saved("GIF"),
    "bmp": saved("BMP"),
    "grey bmp": saved("BMP", mode="L"),
    "lossy webp": saved("WEBP"),
    "lossless webp": saved("WEBP", lossless=True),
    "webp with a canvas": saved("WEBP", mode="RGBA", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_picture_has_its_size_and_looks_whole(kind):
    """Each format; also with bytes behind its end where the decoder takes them."""
    assert header(WHOLE[kind]) == (41 * 30, True)
    if "bmp" not in kind:
        assert header(WHOLE[kind] + b"more") == (41 * 30, True)


def test_an_upside_down_bmp_has_its_size():
    """Its height is negative."""
    content = bytearray(saved("BMP"))
    content[22:26] = struct.pack("<i", -30)
    assert decode(bytes(content)).shape == (30, 41, 3)
    assert header(bytes(content)) == (41 * 30, True)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_the_longer_side_is_found(form):
    """Whether it lies or stands; a GIF that of any frame; nothing where the file is none."""
    assert longer_side(saved(form)) == longer_side(saved(form, (20, 41))) == 41
    assert longer_side(gif((60_000, 1), (1, 300))) == 60_000
    assert longer_side(b"") == 0


@pytest.mark.parametrize("kind", WHOLE)
def test_no_picture_that_decodes_is_taken_for_a_cut_one(kind):
    """Cut at 24 places: whatever does not look whole does not decode, and most cut ones don't look whole."""
    whole = WHOLE[kind]
    noticed = 0
    cuts = np.unique(np.append(np.linspace(0, len(whole) - 1, 20).astype(int), len(whole) - np.arange(1, 5)))
    for length in cuts:
        cut = whole[:length]
        try:
            pixels, is_whole = header(cut)
        except tf.errors.InvalidArgumentError:  # a damaged header of JPEG
            pixels, is_whole = 0, False
        if pixels > 0 and is_whole:
            continue
        noticed += 1
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(cut)
    assert noticed > len(cuts) / 2


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"BM", b"GIF8", b"RIFF", b"<html>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x00" * 99],
)
def test_what_is_no_picture_has_no_size(content):
    """Empty, foreign, and magic numbers alone."""
    assert header(content)[1] is False or header(content)[0] == 0


def test_huge_sizes_are_found():
    """Headers with 100,000 a side, or as many as the format can say, and nothing behind them."""
    png = WHOLE["png"]
    assert header(png[:16] + struct.pack(">II", HUGE, HUGE) + png[24:])[0] == HUGE**2
    bmp = WHOLE["bmp"]
    assert header(bmp[:18] + struct.pack("<ii", HUGE, -HUGE) + bmp[26:])[0] == HUGE**2
    jpeg = bytearray(WHOLE["jpeg"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    assert header(bytes(jpeg)) == (65500**2, True)
    assert header(gif((65535, 65535)))[0] == 65535**2


def test_a_gif_counts_all_its_frames():
    """The decoder unpacks them all, and gives the widest by the highest; the screen's size does not count."""
    assert header(gif((5, 7))) == (35, True)
    assert header(gif(*[(50, 70)] * 40)) == (50 * 70 * 40, True)
    assert header(gif((60_000, 1), (1, 60_000))) == (60_000**2, True)
    assert header(gif(screen=(9, 9)))[1] is False
    frames = [Image.new("RGB", (31, 20), (value, 9, 9)) for value in (0, 99, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:])
    pixels, is_whole = header(buffer.getvalue())
    assert is_whole
    assert 31 * 20 < pixels <= 3 * 31 * 20


def test_an_animated_webp_has_no_pixels():
    """The decoder must never see it; the same file without the canvas's flag has its size."""
    content = animated_webp()
    assert header(content) == (0, True)
    assert header(content[:20] + bytes([content[20] & ~2]) + content[21:]) == (31 * 20, True)
