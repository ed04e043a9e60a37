"""The `tf.data` pipelines."""

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from rll_tf.data import (
    Augmentation,
    CorruptPictureError,
    PictureCache,
    Preprocessing,
    class_balanced_batches,
    evaluation_batches,
    load_pictures,
    name_corrupt,
    open_dataset,
    training_batches,
)
from tests.data.test_images import picture

PREPROCESSING = Preprocessing(12, 16)
EVERYTHING = Augmentation(True, 10, 0.1, 0.1, 0.1, 0.1)


def write_twelve(folder, pixels_of):
    """Four classes of three pictures of different sizes."""
    for number in range(12):
        file = folder / f"class {number // 3}" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels_of(number, [30, 20 + number, 3])).save(file)
    return open_dataset(f"folder:{folder}")


@pytest.fixture
def grey(tmp_path):
    """Pictures of one grey value each."""
    return write_twelve(tmp_path, lambda number, shape: np.full(shape, 20 * number, np.uint8))


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Pictures whose every crop is another."""

    def pixels_of(number, shape):
        return np.random.default_rng(number).integers(0, 256, shape, np.uint8)

    return write_twelve(tmp_path_factory.mktemp("noise"), pixels_of)


def values_of(catalogue):
    """The grey value that each picture shows."""
    return np.array([20 * int(Path(path).stem) for path in catalogue.paths])


def batches_of(catalogue, augmentation=EVERYTHING, shard=(0, 1), steps=3, threads=None, **options):
    """Training batches of 4 × 2: pictures [steps, 8, …] and labels [steps, 8]."""
    sampler = class_balanced_batches(catalogue.labels, 4, 2, 1, shard)
    dataset = training_batches(catalogue, sampler, PREPROCESSING, augmentation, ["low", "high"], **options)
    if threads is not None:
        own = tf.data.Options()
        own.threading.private_threadpool_size = threads
        dataset = dataset.with_options(own)
    images, labels = zip(*itertools.islice(dataset.as_numpy_iterator(), steps), strict=True)
    np.testing.assert_array_equal([row["low"] for row in labels], [row["high"] for row in labels])
    return np.stack(images), np.stack([row["low"] for row in labels])


def test_batches_hold_the_samplers_pictures_and_their_labels(grey):
    """Normalised float32; every picture shows its own value."""
    sampler = class_balanced_batches(grey.labels, 4, 2, seed=1)
    indices = np.stack([sampler[step] for step in range(3)])
    images, labels = batches_of(grey)
    assert images.shape == (3, 8, 12, 12, 3)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(labels, grey.labels[indices])
    assert labels.dtype == np.int64
    np.testing.assert_allclose(images[..., 6, 6, 0] * 127.5 + 127.5, values_of(grey)[indices], atol=0.01)


@pytest.mark.parametrize(
    "augmentation",
    [
        pytest.param(Augmentation(mirror=True), id="crop", marks=pytest.mark.slow),  # geometry crops, too
        pytest.param(EVERYTHING, id="geometry"),
        pytest.param(Augmentation(mirror=True, scale_and_aspect=True), id="scaled crop"),
    ],
)
def test_a_batch_depends_on_the_seed_and_the_step_alone(noise, tmp_path, augmentation):
    """Not on where pictures are kept, how many threads work, where one begins, or how workers share it."""
    images, labels = batches_of(noise, augmentation)
    # Of the 50 mirrored and plain windows of a picture two draws may take the same one.
    assert len({image.tobytes() for batch in images for image in batch}) > 20
    from_files = batches_of(noise, augmentation, memory_bytes=0, threads=1)
    np.testing.assert_array_equal(from_files[0], images)
    np.testing.assert_array_equal(from_files[1], labels)
    on_disk = {"memory_bytes": 0, "cache": PictureCache(tmp_path / "cache")}
    first, second = (
        batches_of(noise, augmentation, shard=(index, 2), first_step=1, steps=2, **options)
        for index, options in enumerate([{}, on_disk])
    )
    np.testing.assert_array_equal(np.concatenate([first[0], second[0]], axis=1), images[1:])
    np.testing.assert_array_equal(np.concatenate([first[1], second[1]], axis=1), labels[1:])


# The paper's: whole picture to 256 × 256, a crop of 227 × 227, Caffe's channels less their mean.
CAFFE = Preprocessing(227, 256, mean=(104.0, 117.0, 123.0), scale=1.0, bgr=True)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Non-square pictures, two of each kind a pipeline meets; a class is a kind."""
    folder = tmp_path_factory.mktemp("kinds")
    modes = {"cmyk.jpg": "CMYK", "alpha.png": "RGBA", "grey.png": "L", "grey.jpg": "L", "rgb.jpg": "RGB"}
    for seed, (name, mode) in enumerate(modes.items()):
        for number in range(2):
            height, width = 150 + 200 * number, 310 - 17 * seed
            pixels = picture(height, width, len(mode), seed=10 * seed + number)
            file = folder / name / f"{number}{Path(name).suffix}"
            file.parent.mkdir(exist_ok=True)
            Image.frombytes(mode, (width, height), pixels.tobytes()).save(file)
    return open_dataset(f"folder:{folder}")


def transcribed(path, corner, mirrored=False):
    """Section 3 of the facts in Pillow and NumPy alone: what the network should see of a file."""
    image = Image.open(path)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    square = np.array(image.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR), np.float32)
    window = square[corner[0] : corner[0] + 227, corner[1] : corner[1] + 227]
    return (window[:, ::-1] if mirrored else window)[..., ::-1] - np.float32([104, 117, 123])


def assert_as_transcribed(catalogue, indices, images, wanted):
    """Pillow resizes in fixed point, so a value may differ by 1; CMYK's rounding adds 1 more."""
    for index, image, want in zip(indices, images, wanted, strict=True):
        tolerance = 2 if "cmyk" in catalogue.paths[index] else 1
        np.testing.assert_allclose(image, want, rtol=0, atol=tolerance, err_msg=catalogue.paths[index])


@pytest.mark.parametrize("memory_bytes", [0, 2**30])
def test_training_pixels_are_pillows_and_numpys(kinds, memory_bytes):
    """Out of the whole pipeline, whether decoded anew or kept in memory; both orientations occur."""
    sampler = class_balanced_batches(kinds.labels, 5, 2, seed=3)
    augmentation = Augmentation(mirror=True)
    dataset = training_batches(kinds, sampler, CAFFE, augmentation, ["low"], memory_bytes=memory_bytes)
    for step, (images, _) in enumerate(itertools.islice(dataset.as_numpy_iterator(), 2)):
        draws = [tf.random.stateless_uniform([11], [3, 10 * step + i]).numpy() for i in range(10)]
        corners = [(draw[2:4] * 30).astype(int) for draw in draws]
        mirrored = [draw[4] < 0.5 for draw in draws]
        assert 0 < sum(mirrored) < 10
        paths = [kinds.paths[index] for index in sampler[step]]
        wanted = [transcribed(*drawn) for drawn in zip(paths, corners, mirrored, strict=True)]
        assert_as_transcribed(kinds, sampler[step], images, wanted)


def test_evaluation_pixels_are_pillows_and_numpys(kinds):
    """The window in the middle of each."""
    (images,) = evaluation_batches(kinds, CAFFE).as_numpy_iterator()
    wanted = [transcribed(path, (14, 14)) for path in kinds.paths]
    assert_as_transcribed(kinds, range(len(kinds)), images, wanted)


def test_a_further_augmentation_sees_pixels_before_they_are_normalised(noise):
    """Such as a Keras layer: it gets 0 to 255 and its result is normalised."""
    invert = keras.layers.Lambda(lambda images: 255 - images)
    inverted, _ = batches_of(noise, augment_batch=invert)
    np.testing.assert_allclose(batches_of(noise)[0], -inverted, atol=1e-5)


def test_a_kerascv_layer_augments_whole_batches(noise):
    """The real library's solarisation, at threshold 0 the complement of every pixel, inside `tf.data`."""
    keras_cv = pytest.importorskip("keras_cv", reason="keras-cv is not installed: make test-all")
    solarise = keras_cv.layers.Solarization(value_range=(0, 255), threshold_factor=0.0)
    changed, _ = batches_of(noise, augment_batch=solarise)
    np.testing.assert_allclose(batches_of(noise)[0], -changed, atol=1e-5)


def test_pictures_cached_on_disk_equal_fresh_ones(noise, tmp_path):
    """In evaluation and in memory."""
    cache = PictureCache(tmp_path / "cache")
    np.testing.assert_array_equal(
        load_pictures(noise, PREPROCESSING), load_pictures(noise, PREPROCESSING, cache)
    )
    np.testing.assert_array_equal(
        list(evaluation_batches(noise, PREPROCESSING)),
        list(evaluation_batches(noise, PREPROCESSING, cache=cache)),
    )


def test_evaluation_shows_each_picture_once_in_order(grey):
    """Centre crops in the catalogue's order, the last batch shorter."""
    batches = list(evaluation_batches(grey, PREPROCESSING, batch_size=5).as_numpy_iterator())
    assert [len(batch) for batch in batches] == [5, 5, 2]
    values = np.concatenate(batches)[:, 0, 0, 2] * 127.5 + 127.5
    np.testing.assert_allclose(values, values_of(grey), atol=0.01)
    singles = [PREPROCESSING.prepare(grey.encoded(index)) for index in range(12)]
    np.testing.assert_array_equal(np.concatenate(batches), singles)


def test_a_catalogue_of_pixels_equals_one_of_files():
    """Grey letters, as pixels and as the files that hold them."""
    glyphs = open_dataset("glyphs").take(np.arange(3))
    singles = [PREPROCESSING.prepare(glyphs.encoded(index)) for index in range(3)]
    (batch,) = evaluation_batches(glyphs, PREPROCESSING).as_numpy_iterator()
    np.testing.assert_array_equal(batch, singles)


def test_a_truncated_picture_is_named(grey, tmp_path):
    """Whether pictures are kept in memory, on disk or not, and with the count of further ones."""
    for number in (4, 7):
        file = tmp_path / f"class {number // 3}" / f"{number}.png"
        file.write_bytes(file.read_bytes()[:60])
    message = r"class 1/4\.png is not a whole picture.*\(1 more like it\)"
    with pytest.raises(CorruptPictureError, match=message):
        load_pictures(grey, PREPROCESSING)
    with pytest.raises(CorruptPictureError, match=message):
        batches_of(grey, cache=PictureCache(tmp_path / "cache"))
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        batches_of(grey, memory_bytes=0)
    with pytest.raises(CorruptPictureError, match=message):
        raise name_corrupt(grey, caught.value)


def test_a_vanished_picture_is_named(grey, tmp_path):
    """A file that is gone since the folder was listed."""
    (tmp_path / "class 3" / "9.png").unlink()
    with pytest.raises(CorruptPictureError, match=r"9\.png can't be read \(No such file or directory\)"):
        load_pictures(grey, PREPROCESSING)


def test_another_error_than_a_corrupt_picture_is_passed_on(grey):
    """Where every picture decodes, the pipeline's own error stands."""
    error = RuntimeError("something else")
    assert name_corrupt(grey, error) is error
