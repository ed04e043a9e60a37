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
    """A picture whose pixels tell their place: the window lies inside, its size and shape are in range."""
    rows, columns = np.mgrid[:120, :200].astype(np.float32)
    image = tf.constant(np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8))
    augmentation, sides, ratios, corners = Augmentation(scale_and_aspect=True), [], [], []
    for number in range(60):
        crop = augmentation.scaled_crop(image, Preprocessing(24, 32), [7, number]).numpy().astype(int)
        assert crop.shape == (24, 24, 3)
        # Half a pixel of the crop lies beyond its first and last pixels' centres.
        height = (crop[-1, 0, 0] - crop[0, 0, 0]) * 24 / 23
        width = (crop[0, -1, 1] - crop[0, 0, 1]) * 24 / 23
        sides.append(np.sqrt(height * width / (120 * 200)))
        ratios.append(width / height)
        corners.append(crop[0, 0, :2])
    assert 0.48 < min(sides) < 0.56
    assert 0.9 < max(sides) < 1.02
    assert 0.68 < min(ratios) < 0.85
    assert 1.2 < max(ratios) < 1.46
    assert np.ptp(corners, axis=0).min() > 20


def test_a_scaled_crop_equals_pillow_and_numpy():
    """The same draws, written out in NumPy, on a picture so narrow that the window is limited by it."""
    pixels = picture(90, 40)
    for number in range(5):
        u = tf.random.stateless_uniform([4], [1, number]).numpy().astype(float)
        side = (0.5 + 0.5 * u[0]) * np.sqrt(90 * 40)
        ratio = (4 / 3) ** (2 * u[1] - 1)
        height, width = min(90, round(side / ratio**0.5)), min(40, round(side * ratio**0.5))
        top, left = int(u[2] * (90 - height + 1)), int(u[3] * (40 - width + 1))
        window = Image.fromarray(pixels[top : top + height, left : left + width])
        wanted = np.array(window.resize((24, 24), Image.Resampling.BILINEAR)).astype(int)
        crop = Augmentation(scale_and_aspect=True).scaled_crop(
            tf.constant(pixels), Preprocessing(24, 32), [1, number]
        )
        np.testing.assert_allclose(crop.numpy().astype(int), wanted, atol=1)


def test_parts_of_a_batch_come_out_as_the_whole():
    """Two workers draw what a single one draws."""
    augmentation, preprocessing = Augmentation(True, 10, 0.1, 0.1, 0.1, 0.1), Preprocessing(13, 20)
    images = batch(6)
    whole = augmentation(images, preprocessing, [3, 4])
    parts = [augmentation(images[i : i + 3], preprocessing, [3, 4], (i, 6)) for i in (0, 3)]
    np.testing.assert_array_equal(tf.concat(parts, 0), whole)


def test_a_batch_is_fitted_picture_by_picture():
    """Leading axes are kept."""
    images = tf.constant(np.stack([picture(30, 41, seed=seed) for seed in range(6)]).reshape(2, 3, 30, 41, 3))
    fitted = Preprocessing(16, 16).fit(images)
    assert fitted.shape == (2, 3, 16, 16, 3)
    np.testing.assert_array_equal(fitted[1, 2], Preprocessing(16, 16).fit(images[1, 2]))


def test_the_test_time_way_equals_a_numpy_transcription():
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
    return tf.constant(np.stack([picture(side, side, seed=seed) for seed in range(count)]))


def test_random_crops_are_windows_of_the_picture_and_differ():
    """Each crop is found in its own picture, unchanged, and places differ."""
    images, preprocessing = batch(), Preprocessing(13, 20)
    crops = Augmentation()(images, preprocessing, [3, 4]).numpy()
    places = []
    for image, crop in zip(images.numpy(), crops, strict=True):
        found = [
            (y, x) for y in range(8) for x in range(8) if np.array_equal(image[y : y + 13, x : x + 13], crop)
        ]
        assert len(found) == 1
        places += found
    assert len(set(places)) > 1


def test_crops_reach_every_place():
    """Corner 0 and the last corner are both drawn."""
    images = tf.constant(np.tile(np.arange(6, dtype=np.uint8)[:, None], [400, 1, 6])[..., None].repeat(3, 3))
    corners = Augmentation()(images, Preprocessing(4, 6), [0, 0])[:, 0, 0, 0]
    assert set(corners.numpy().astype(int)) == {0, 1, 2}


def test_mirroring_mirrors_some_pictures_left_to_right():
    """Every picture is itself or its mirror image, and both occur."""
    images = batch(20)
    mirrored = Augmentation(mirror=True)(images, Preprocessing(20, 20), [1, 2]).numpy()
    same = [np.array_equal(a, b) for a, b in zip(images.numpy(), mirrored, strict=True)]
    flipped = [np.array_equal(a[:, ::-1], b) for a, b in zip(images.numpy(), mirrored, strict=True)]
    assert all(np.logical_xor(same, flipped))
    assert any(same)
    assert any(flipped)


def test_letters_are_not_mirrored_by_default():
    """Without any setting pictures are left as they are."""
    images = batch()
    np.testing.assert_array_equal(Augmentation()(images, Preprocessing(20, 20), [1, 2]), images)


def test_geometry_is_centred_and_bounded():
    """Rotation, zoom, stretch and shear keep the middle; a shift moves it, at most so far."""
    image = np.zeros([50, 21, 21, 3], np.uint8)
    image[:, 10, 10] = 255
    turned = Augmentation(rotate_degrees=40, zoom=0.2, stretch=0.3, shear=0.3)
    kept = turned(tf.constant(image), Preprocessing(21, 21), [5, 5]).numpy()
    assert (kept[:, 10, 10] > 250).all()
    moved = Augmentation(shift=0.1)(tf.constant(image), Preprocessing(21, 21), [5, 5]).numpy()[..., 0]
    rows = (moved.sum(2) * np.arange(21)).sum(1) / moved.sum((1, 2))
    assert 1 < np.abs(rows - 10).max() <= 2.1


def test_rotation_turns_by_at_most_the_angle():
    """A bar's direction, measured by its second moments, stays within the angle and reaches most of it."""
    image = np.zeros([200, 41, 41, 3], np.uint8)
    image[:, 20, 5:36] = 255
    turned = Augmentation(rotate_degrees=30)(tf.constant(image), Preprocessing(41, 41), [1, 1]).numpy()[
        ..., 0
    ]
    y, x = np.mgrid[:41, :41] - 20
    angles = np.degrees(
        0.5 * np.arctan2(2 * (turned * x * y).sum((1, 2)), (turned * (x * x - y * y)).sum((1, 2)))
    )
    assert 27 < np.abs(angles).max() < 30.5


def test_augmentation_is_a_function_of_the_seed():
    """Equal seeds give equal pictures, in a graph too; another step gives others."""
    augmentation = Augmentation(True, 10, 0.1, 0.1, 0.1, 0.1)
    images, preprocessing = batch(), Preprocessing(16, 20)
    first = augmentation(images, preprocessing, [3, 4])
    again = tf.function(lambda x: augmentation(x, preprocessing, [3, 4]))(images)
    other = augmentation(images, preprocessing, [3, 5])
    np.testing.assert_allclose(first, again, atol=1e-3)
    assert not np.allclose(first, other, atol=1)
