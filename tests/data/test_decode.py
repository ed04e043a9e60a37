"""A picture file's bytes to pixels."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from rll_tf.data.decode import decode, exif_orientation
from tests.data.test_image_header import animated_webp
from tests.data.test_images import encoded, picture

in_graph = tf.function(decode, input_signature=[tf.TensorSpec([], tf.string)])


def pillow(content, mode="RGB"):
    """What Pillow decodes, upright."""
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert(mode))


def saved(image, form, **options):
    """A file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_lossless_files_decode_to_their_pixels(form):
    """A non-square RGB picture comes back as it was."""
    pixels = picture(30, 41)
    np.testing.assert_array_equal(decode(encoded(pixels, form)), pixels)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [30, 92])
def test_jpeg_decodes_exactly_as_pillow_does(subsampling, quality):
    """Every pixel of a noisy, non-square picture, progressive or not."""
    noise = np.random.default_rng(0).integers(-30, 30, [61, 83, 3])
    image = Image.fromarray((picture(61, 83) + noise).clip(0, 255).astype(np.uint8))
    for progressive in (False, True):
        content = saved(image, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
        np.testing.assert_array_equal(decode(content), pillow(content))


def on_white(image):
    """Pillow's blend of a transparent picture with a white page."""
    page = Image.new("RGB", image.size, "white")
    page.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return np.array(page)


def test_grey_one_bit_and_palettes_become_three_channels():
    """Grey and 1-bit pictures become three equal channels, palettes are applied."""
    grey = picture(20, 33, 1)
    for form in ("PNG", "BMP"):
        np.testing.assert_array_equal(decode(encoded(grey, form)), np.repeat(grey, 3, axis=2))
    np.testing.assert_array_equal(decode(encoded(grey, "JPEG"))[..., 0], pillow(encoded(grey, "JPEG"), "L"))
    bits = grey[:, :, 0] > 128
    np.testing.assert_array_equal(decode(saved(Image.fromarray(bits), "PNG"))[:, :, 1], bits * 255)
    palette = Image.fromarray(picture(20, 33, 3)).quantize(16)
    np.testing.assert_array_equal(decode(saved(palette, "PNG")), np.array(palette.convert("RGB")))


def test_a_transparent_picture_lies_on_white():
    """The colours that a transparent pixel hides reach no network, whichever way the file has its alpha."""
    pixels = picture(20, 33, 4)
    pixels[:, :9, 3], pixels[:, 9:20, 3] = 0, 255
    rgba = Image.fromarray(pixels)
    grey = rgba.convert("LA")
    palette = rgba.quantize(16)
    for image in (rgba, grey, palette):
        shown = np.array(decode(saved(image, "PNG")))
        np.testing.assert_array_equal(shown[:, :9], 255)
        np.testing.assert_allclose(shown.astype(int), on_white(image.convert("RGBA")).astype(int), atol=1)
    bmp = decode(saved(rgba, "BMP"))
    np.testing.assert_array_equal(bmp, pixels[:, :, :3])


@pytest.mark.parametrize("colours", [5, 256])
def test_an_8_bit_bmp_shows_its_palettes_colours(colours):
    """Short palettes and whole ones, eagerly and in a graph; without any, values are grey."""
    image = Image.fromarray(picture(20, 33)).quantize(colours)
    content = saved(image, "BMP")
    np.testing.assert_array_equal(decode(content), np.array(image.convert("RGB")))
    np.testing.assert_array_equal(in_graph(tf.constant(content)), np.array(image.convert("RGB")))
    pixels_at = int.from_bytes(content[10:14], "little")
    bare = content[:10] + (54).to_bytes(4, "little") + content[14:54] + content[pixels_at:]
    np.testing.assert_array_equal(decode(bare)[..., 1], np.array(image))


def test_a_bmp_of_another_kind_is_refused():
    """One bit a pixel, and 8 bits compressed, which would decode to nonsense."""
    content = bytearray(saved(Image.fromarray(picture(20, 33)).quantize(9), "BMP"))
    content[30] = 1
    bits = saved(Image.fromarray(picture(20, 33)).convert("1"), "BMP")
    for file, message in [(bytes(content), "must not be compressed"), (bits, "must be 1, 3 or 4")]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            decode(file)
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            in_graph(tf.constant(file))


def test_a_png_of_16_bits_keeps_the_upper_eight():
    """Not the nearest of 256 values."""
    values = np.linspace(0, 65535, 20 * 33).reshape(20, 33).astype(np.uint16)
    content = saved(Image.fromarray(values), "PNG")
    np.testing.assert_array_equal(decode(content)[..., 1], values >> 8)


def test_cmyk_becomes_rgb():
    """As Pillow turns it, up to the rounding of one product."""
    content = saved(_cmyk(), "JPEG", quality=95)
    np.testing.assert_allclose(decode(content).numpy().astype(int), pillow(content).astype(int), atol=1)


def _cmyk():
    image = Image.fromarray(picture(40, 31)).convert("CMYK")
    black = Image.fromarray(picture(40, 31, 1, seed=1).squeeze())
    return Image.merge("CMYK", [*image.split()[:3], black])


def test_a_gif_decodes_to_its_first_frame():
    """Later frames are ignored."""
    frames = [Image.fromarray(np.full([6, 9, 3], value, np.uint8)) for value in (10, 200)]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(decode(content), np.full([6, 9, 3], 10), atol=2)


@pytest.mark.skipif(not hasattr(tf.io, "decode_webp"), reason="this TensorFlow does not decode WebP")
@pytest.mark.parametrize("channels", [3, 4])
def test_webp_decodes_where_tensorflow_can(channels):
    """Lossless WebP comes back as it was, a transparent one on white."""
    pixels = picture(20, 33, channels)
    if channels == 4:
        pixels[..., 3] = 255 - pixels[..., 3] // 2
    image = Image.fromarray(pixels)
    wanted = on_white(image) if channels == 4 else pixels
    shown = np.array(decode(saved(image, "WEBP", lossless=True, exact=True)))
    np.testing.assert_allclose(shown.astype(int), wanted.astype(int), atol=1)


@pytest.mark.parametrize("run", [decode, in_graph])
def test_an_animated_webp_is_refused(run):
    """TensorFlow's decoder would end the process."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be a still picture; got an animated one"):
        run(tf.constant(animated_webp()))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation, order):
    """All eight, in both byte orders, as Pillow turns them; in a graph too."""
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F] = "a maker before it"
    exif[0x0112] = orientation
    content = saved(Image.fromarray(picture(24, 37)), "JPEG", exif=exif)
    np.testing.assert_array_equal(decode(content), pillow(content))
    np.testing.assert_array_equal(in_graph(tf.constant(content)), pillow(content))


def test_an_odd_exif_block_changes_nothing():
    """Without orientation, out of range, or broken off at any byte."""
    for values in ({}, {0x0112: 9}, {0x0112: 0}):
        exif = Image.Exif()
        exif[0x010F] = "maker"
        for tag, value in values.items():
            exif[tag] = value
        content = saved(Image.fromarray(picture(24, 37)), "JPEG", exif=exif)
        assert decode(content).shape == (24, 37, 3)
    exif[0x0112] = 6
    whole = saved(Image.fromarray(picture(24, 37)), "JPEG", exif=exif)
    orientation = tf.function(exif_orientation, input_signature=[tf.TensorSpec([], tf.string)])
    found = {int(orientation(tf.constant(whole[:length]))) for length in range(20, 100)}
    assert found == {1, 6}


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"BM", b"no picture", encoded(picture(40, 40), "JPEG")[:-300]]
)
def test_what_is_no_whole_picture_raises(content):
    """Empty, foreign and truncated bytes."""
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(content)
