"""From a file's bytes to a network's input."""

import dataclasses
import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from rll_tf.data.images import Augmentation, Preprocessing


def picture(height, width, channels=3, seed=0):
    """A smooth random picture, so that resizing methods agree: [height, width, channels] uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, [4, 5, channels]).astype(np.float32)
    return tf.image.resize(coarse, [height, width], "bicubic").numpy().clip(0, 255).round().astype(np.uint8)


def encoded(pixels, form="PNG"):
    """The bytes of a picture file, written by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, format=form)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(90, 140), (31, 20)])
def test_resizing_equals_pillow(size):
    """Shrinking and growing a non-square picture, to one grey value of rounding."""
    pixels = picture(*size)
    fitted = Preprocessing(48, 48).fit(tf.constant(pixels))
    wanted = Image.fromarray(pixels).resize((48, 48), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(fitted.numpy().astype(int), np.array(wanted).astype(int), atol=1)
    assert fitted.dtype == tf.uint8


def test_a_scaled_crop_is_a_window_resized():
    """Of a picture whose pixels are their coordinates: it lies inside, its size and shape are in range."""
    rows, columns = np.mgrid[:120, :200].astype(np.uint8)
    image = np.stack([rows, columns, 0 * rows], axis=2)
    crops = augmented(Augmentation(scale_and_aspect=True), [image] * 60, Preprocessing(24, 32))
    # Half a pixel of the crop lies beyond its first and last pixels' centres.
    heights = (crops[:, -1, 0, 0] - crops[:, 0, 0, 0]) * 24 / 23
    widths = (crops[:, 0, -1, 1] - crops[:, 0, 0, 1]) * 24 / 23
    sides, ratios = np.sqrt(heights * widths / (120 * 200)), widths / heights
    assert 0.48 < min(sides) < 0.56
    assert 0.9 < max(sides) < 1.02
    assert 0.68 < min(ratios) < 0.85
    assert 1.2 < max(ratios) < 1.46
    assert np.ptp(crops[:, 0, 0, :2], axis=0).min() > 20


def test_a_scaled_crop_equals_pillow_and_numpy():
    """The same draws, written out in NumPy, on a picture so narrow that the window is limited by it."""
    pixels = picture(90, 40)
    crops = augmented(Augmentation(scale_and_aspect=True), [pixels] * 5, Preprocessing(24, 32), seed=1)
    for number, crop in enumerate(crops):
        u = tf.random.stateless_uniform([11], [1, number]).numpy().astype(float)
        side = (0.5 + 0.5 * u[0]) * np.sqrt(90 * 40)
        ratio = (4 / 3) ** (2 * u[1] - 1)
        height, width = min(90, round(side / ratio**0.5)), min(40, round(side * ratio**0.5))
        top, left = int(u[2] * (90 - height + 1)), int(u[3] * (40 - width + 1))
        window = Image.fromarray(pixels[top : top + height, left : left + width])
        wanted = np.array(window.resize((24, 24), Image.Resampling.BILINEAR)).astype(int)
        np.testing.assert_allclose(crop, wanted, atol=1)


def test_a_batch_is_fitted_picture_by_picture():
    """A leading axis is kept, and one channel becomes three."""
    images = np.stack([picture(30, 41, 1, seed=seed) for seed in range(6)])
    fitted = Preprocessing(16, 16).fit(tf.constant(images))
    assert fitted.shape == (6, 16, 16, 3)
    np.testing.assert_array_equal(fitted[4], Preprocessing(16, 16).fit(tf.constant(images[4])))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_is_cut_from_the_fitted_picture(channels):
    """Whether the picture is whole or has been fitted before."""
    preprocessing, corner = Preprocessing(13, 20), tf.constant([2, 7])
    image = tf.constant(picture(30, 41, channels))
    fitted = preprocessing.fit(image)
    for window in (preprocessing.fit_window(image, corner), preprocessing.fit_window(fitted, corner)):
        np.testing.assert_array_equal(window, fitted[2:15, 7:20])
        assert window.dtype == tf.uint8


def test_preparing_a_file_equals_a_numpy_transcription():
    """Resize to 60, centre crop of 45, BGR minus the mean, for grey and RGB files."""
    preprocessing = Preprocessing(45, 60, mean=(104, 117, 123), scale=1, bgr=True)
    for channels in (1, 3):
        pixels = picture(80, 120, channels)
        resized = Image.fromarray(pixels.squeeze()).convert("RGB").resize((60, 60), Image.Resampling.BILINEAR)
        cropped = np.array(resized).astype(np.float32)[7:52, 7:52]
        wanted = cropped[:, :, ::-1] - np.float32([104, 117, 123])
        np.testing.assert_allclose(preprocessing.prepare(encoded(pixels)), wanted, atol=1)


def test_preprocessing_survives_json():
    """It travels in a run's configuration and in an artefact."""
    preprocessing = Preprocessing(45, 60, mean=(104, 117, 123), scale=1, bgr=True)
    values = json.loads(json.dumps(dataclasses.asdict(preprocessing)))
    assert Preprocessing.from_dict(values) == preprocessing


def test_a_crop_larger_than_the_picture_is_refused():
    """input_px is at most resize_px."""
    with pytest.raises(ValueError, match="got input_px=10, resize_px=9"):
        Preprocessing(10, 9)


def batch(count=6, side=20):
    """Different pictures of one size."""
    return np.stack([picture(side, side, seed=seed) for seed in range(count)])


@tf.function
def augmented_in_graph(augmentation, images, preprocessing, seed):
    """Each picture augmented with a seed of its own."""

    def crop(number):
        draws = augmentation.draw(tf.stack([seed, number]))
        return augmentation.crop(images[number], preprocessing, draws), draws

    crops = tf.map_fn(crop, tf.range(len(images)), fn_output_signature=(tf.uint8, tf.float32))
    return augmentation.distort(*crops)


def augmented(augmentation, images, preprocessing, seed=0):
    """[N, input_px, input_px, 3]."""
    return augmented_in_graph(augmentation, tf.constant(np.stack(images)), preprocessing, seed).numpy()


def test_random_crops_are_windows_of_the_picture_and_differ():
    """Each crop is found in its own picture, unchanged, and corners differ."""
    images = batch()
    corners = []
    for image, crop in zip(images, augmented(Augmentation(), images, Preprocessing(13, 20)), strict=True):
        found = [
            (y, x) for y in range(8) for x in range(8) if np.array_equal(image[y : y + 13, x : x + 13], crop)
        ]
        assert len(found) == 1
        corners += found
    assert len(set(corners)) > 1


def test_crops_begin_everywhere_equally_often():
    """Also at corner 0 and at the last."""
    image = np.tile(np.arange(6, dtype=np.uint8)[:, None, None], [1, 6, 3])
    first_rows = augmented(Augmentation(), [image] * 600, Preprocessing(4, 6))[:, 0, 0, 0]
    np.testing.assert_allclose(np.bincount(first_rows.astype(int)) / 600, [1 / 3] * 3, atol=0.07)


def test_mirroring_mirrors_half_of_the_pictures_left_to_right():
    """Every picture is itself or its mirror image."""
    images = batch(100)
    mirrored = augmented(Augmentation(mirror=True), images, Preprocessing(20, 20))
    same = (mirrored == images).all(axis=(1, 2, 3))
    flipped = (mirrored == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert np.logical_xor(same, flipped).all()
    assert 30 < same.sum() < 70


def test_without_settings_pictures_stay_as_they_are():
    """Letters, for one, must not be mirrored."""
    images = batch()
    np.testing.assert_array_equal(augmented(Augmentation(), images, Preprocessing(20, 20)), images)


def test_geometry_is_centred_and_bounded():
    """Rotation, zoom, stretch and shear keep the middle; a shift moves it, at most so far."""
    image = np.zeros([50, 21, 21, 3], np.uint8)
    image[:, 10, 10] = 255
    turned = Augmentation(rotate_degrees=40, zoom=0.2, stretch=0.3, shear=0.3)
    kept = augmented(turned, image, Preprocessing(21, 21))
    assert (kept[:, 10, 10] > 250).all()
    moved = augmented(Augmentation(shift=0.1), image, Preprocessing(21, 21))[..., 0]
    rows = (moved.sum(2) * np.arange(21)).sum(1) / moved.sum((1, 2))
    assert 1 < np.abs(rows - 10).max() <= 2.1


def test_rotation_turns_by_at_most_the_angle():
    """A bar's direction, measured by its second moments, stays within the angle and reaches most of it."""
    image = np.zeros([200, 41, 41, 3], np.uint8)
    image[:, 20, 5:36] = 255
    turned = augmented(Augmentation(rotate_degrees=30), image, Preprocessing(41, 41))[..., 0]
    y, x = np.mgrid[:41, :41] - 20
    angles = np.degrees(
        0.5 * np.arctan2(2 * (turned * x * y).sum((1, 2)), (turned * (x * x - y * y)).sum((1, 2)))
    )
    assert 27 < np.abs(angles).max() < 30.5


def test_augmentation_is_a_function_of_the_seed():
    """Equal seeds give equal pictures, eagerly too; another seed gives others."""
    augmentation, preprocessing = Augmentation(True, 10, 0.1, 0.1, 0.1, 0.1), Preprocessing(16, 20)
    images = batch(3)
    first, again, other = (augmented(augmentation, images, preprocessing, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=1)
    draws = [augmentation.draw([3, number]) for number in range(3)]
    crops = [
        augmentation.crop(*each) for each in zip(tf.constant(images), [preprocessing] * 3, draws, strict=True)
    ]
    np.testing.assert_allclose(first, augmentation.distort(tf.stack(crops), tf.stack(draws)), atol=1e-3)
