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


@pytest.fixture
def catalogue(tmp_path):
    """Four classes of three pictures of different sizes, one value a picture."""
    for number in range(12):
        file = tmp_path / f"class {number // 3}" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("L", (20 + number, 30), 20 * number).save(file)
    return open_dataset(f"folder:{tmp_path}")


def values_of(catalogue):
    """The grey value that each picture shows."""
    return np.array([20 * int(Path(path).stem) for path in catalogue.paths])


def batches_of(catalogue, **options):
    """Three training batches of 2 × 2."""
    sampler = class_balanced_batches(catalogue.labels, 2, 2, seed=1)
    augmentation = Augmentation(True, 10, 0.1, 0.1, 0.1, 0.1)
    dataset = training_batches(catalogue, sampler, PREPROCESSING, augmentation, ["low", "high"], **options)
    return list(itertools.islice(dataset.as_numpy_iterator(), 3))


def test_batches_hold_the_samplers_pictures_and_one_label_a_level(catalogue):
    """Each level's labels are the sampler's, and every picture shows its own value."""
    sampler = class_balanced_batches(catalogue.labels, 2, 2, seed=1)
    for step, (images, labels) in enumerate(batches_of(catalogue)):
        assert images.shape == (4, 12, 12, 3)
        assert images.dtype == np.float32
        assert set(labels) == {"low", "high"}
        for values in labels.values():
            np.testing.assert_array_equal(values, catalogue.labels[sampler[step]])
            assert values.dtype == np.int64
        np.testing.assert_allclose(
            images[:, 6, 6, 0] * 127.5 + 127.5, values_of(catalogue)[sampler[step]], atol=0.01
        )


def test_pictures_kept_in_memory_equal_pictures_decoded_anew(catalogue):
    """The memory limit changes nothing but speed."""
    for kept, fresh in zip(batches_of(catalogue), batches_of(catalogue, memory_bytes=0), strict=True):
        np.testing.assert_array_equal(kept[0], fresh[0])
        np.testing.assert_array_equal(kept[1]["low"], fresh[1]["low"])


def test_pictures_finished_one_by_one_equal_whole_batches(catalogue):
    """Crops and mirrors without geometry, decoded anew, kept in memory, or in two workers' parts."""
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, [30, 20 + number, 3], np.uint8)
        Image.fromarray(pixels).save(catalogue.paths[number])

    def first(memory_bytes, *shard):
        sampler = class_balanced_batches(catalogue.labels, 4, 3, 1, *shard)
        dataset = training_batches(
            catalogue, sampler, PREPROCESSING, Augmentation(mirror=True), ["low"], memory_bytes=memory_bytes
        )
        return next(dataset.as_numpy_iterator())

    images, labels = first(2**30)
    for parts in ([first(0)], [first(0, (index, 2)) for index in range(2)]):
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), images)
        np.testing.assert_array_equal(np.concatenate([part[1]["low"] for part in parts]), labels["low"])


# The paper's: whole picture to 256 × 256, a crop of 227 × 227, Caffe's channels less their mean.
CAFFE = Preprocessing(227, 256, mean=(104.0, 117.0, 123.0), scale=1.0, bgr=True)


@pytest.fixture
def kinds(tmp_path):
    """Non-square pictures, two of each kind a pipeline meets; a class is a kind."""
    modes = {"cmyk.jpg": "CMYK", "alpha.png": "RGBA", "grey.png": "L", "grey.jpg": "L", "rgb.jpg": "RGB"}
    for seed, (name, mode) in enumerate(modes.items()):
        for number in range(2):
            height, width = 150 + 200 * number, 310 - 17 * seed
            pixels = picture(height, width, len(mode), seed=10 * seed + number)
            file = tmp_path / name / f"{number}{Path(name).suffix}"
            file.parent.mkdir(exist_ok=True)
            Image.frombytes(mode, (width, height), pixels.tobytes()).save(file)
    return open_dataset(f"folder:{tmp_path}")


def transcribed(path, corner, mirrored=False):
    """Section 3 of the facts in Pillow and NumPy alone: what the network should see of a file."""
    image = Image.open(path)
    if image.mode == "RGBA":
        image = Image.fromarray(np.array(image)[..., :3])  # alpha is dropped, not blended
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
        seed = tf.constant([3, step], tf.int64)
        corners, mirrored = (drawn.numpy() for drawn in augmentation.places(10, CAFFE, seed))
        assert 0 < mirrored.sum() < 10
        paths = [kinds.paths[index] for index in sampler[step]]
        wanted = [transcribed(*drawn) for drawn in zip(paths, corners, mirrored, strict=True)]
        assert_as_transcribed(kinds, sampler[step], images, wanted)


def test_evaluation_pixels_are_pillows_and_numpys(kinds):
    """The window in the middle of each."""
    (images,) = evaluation_batches(kinds, CAFFE).as_numpy_iterator()
    wanted = [transcribed(path, (14, 14)) for path in kinds.paths]
    assert_as_transcribed(kinds, range(len(kinds)), images, wanted)


@pytest.mark.parametrize("scale_and_aspect", [False, True])
def test_batches_do_not_depend_on_the_number_of_threads(kinds, scale_and_aspect):
    """One thread of the pipeline's own, and four: the same pictures, crops, mirrors and labels."""
    sampler = class_balanced_batches(kinds.labels, 4, 2, seed=3)
    augmentation = Augmentation(mirror=True, scale_and_aspect=scale_and_aspect)

    def batches(threads):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        dataset = training_batches(kinds, sampler, CAFFE, augmentation, ["low"], memory_bytes=0)
        return list(itertools.islice(dataset.with_options(options).as_numpy_iterator(), 4))

    for one, four in zip(batches(1), batches(4), strict=True):
        np.testing.assert_array_equal(one[0], four[0])
        np.testing.assert_array_equal(one[1]["low"], four[1]["low"])


def test_scaled_crops_are_the_same_whatever_else_happens(catalogue, tmp_path):
    """From files whatever the memory, in any order of threads; each picture differs from step to step."""
    sampler = class_balanced_batches(catalogue.labels, 2, 2, seed=1)
    augmentation = Augmentation(mirror=True, scale_and_aspect=True)
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, [30, 20 + number, 3], np.uint8)
        Image.fromarray(pixels).save(catalogue.paths[number])

    def two(sampler, **options):
        dataset = training_batches(catalogue, sampler, PREPROCESSING, augmentation, ["low"], **options)
        return [images for images, _ in itertools.islice(dataset.as_numpy_iterator(), 2)]

    whole = two(sampler)
    np.testing.assert_array_equal(whole, two(sampler, memory_bytes=0))
    halves = [two(class_balanced_batches(catalogue.labels, 2, 2, 1, (i, 2))) for i in range(2)]
    np.testing.assert_array_equal(whole, np.concatenate(halves, axis=1))
    assert len({image.tobytes() for batch in whole for image in batch}) == 8


def test_workers_parts_side_by_side_are_the_single_workers_batch(catalogue):
    """Pictures with their random changes, and labels."""
    augmentation = Augmentation(True, 10, 0.1, 0.1, 0.1, 0.1)

    def first(*shard):
        sampler = class_balanced_batches(catalogue.labels, 4, 2, 1, *shard)
        dataset = training_batches(catalogue, sampler, PREPROCESSING, augmentation, ["low"])
        return next(dataset.as_numpy_iterator())

    images, labels = first()
    parts = [first((index, 2)) for index in range(2)]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), images)
    np.testing.assert_array_equal(np.concatenate([part[1]["low"] for part in parts]), labels["low"])


def test_a_further_augmentation_sees_pixels_before_they_are_normalised(catalogue):
    """Such as a Keras layer: it gets 0 to 255 and its answer is normalised."""
    invert = keras.layers.Lambda(lambda images: 255 - images)
    for plain, inverted in zip(
        batches_of(catalogue), batches_of(catalogue, augment_batch=invert), strict=True
    ):
        np.testing.assert_allclose(plain[0], -inverted[0], atol=1e-5)


def test_a_kerascv_layer_augments_whole_batches(catalogue):
    """The real library's solarisation, at threshold 0 the complement of every pixel, inside `tf.data`."""
    keras_cv = pytest.importorskip("keras_cv", reason="keras-cv is not installed: make test-all")
    solarise = keras_cv.layers.Solarization(value_range=(0, 255), threshold_factor=0.0)
    for plain, changed in zip(
        batches_of(catalogue), batches_of(catalogue, augment_batch=solarise), strict=True
    ):
        np.testing.assert_allclose(plain[0], -changed[0], atol=1e-5)


def test_pictures_cached_on_disk_equal_fresh_ones(catalogue, tmp_path):
    """In training, with and without memory, and in evaluation."""
    cache = PictureCache(tmp_path / "cache")
    for fresh, cached in zip(
        batches_of(catalogue), batches_of(catalogue, memory_bytes=0, cache=cache), strict=True
    ):
        np.testing.assert_array_equal(fresh[0], cached[0])
    np.testing.assert_array_equal(
        load_pictures(catalogue, PREPROCESSING), load_pictures(catalogue, PREPROCESSING, cache)
    )
    np.testing.assert_array_equal(
        list(evaluation_batches(catalogue, PREPROCESSING)),
        list(evaluation_batches(catalogue, PREPROCESSING, cache=cache)),
    )


def test_a_corrupt_picture_is_named_through_the_cache_too(catalogue, tmp_path):
    """It never enters the cache."""
    Path(catalogue.paths[5]).write_bytes(b"no picture")
    with pytest.raises(CorruptPictureError, match=r"5\.png is not a whole picture"):
        batches_of(catalogue, cache=PictureCache(tmp_path / "cache"))


def test_a_pipeline_begun_at_a_step_continues_the_order(catalogue):
    """Pictures, their random changes and labels from step 2 are those of the uninterrupted pipeline."""
    through, begun = batches_of(catalogue)[2], batches_of(catalogue, first_step=2)[0]
    np.testing.assert_array_equal(through[0], begun[0])
    np.testing.assert_array_equal(through[1]["high"], begun[1]["high"])


def test_evaluation_shows_each_picture_once_in_order(catalogue):
    """Centre crops in the catalogue's order, the last batch shorter."""
    batches = list(evaluation_batches(catalogue, PREPROCESSING, batch_size=5).as_numpy_iterator())
    assert [len(batch) for batch in batches] == [5, 5, 2]
    values = np.concatenate(batches)[:, 0, 0, 2] * 127.5 + 127.5
    np.testing.assert_allclose(values, values_of(catalogue), atol=0.01)
    singles = [PREPROCESSING.prepare(catalogue.encoded(index)) for index in range(12)]
    np.testing.assert_array_equal(np.concatenate(batches), singles)


def test_pictures_in_memory_go_the_same_way_as_files(catalogue):
    """A catalogue of pixels gives what a catalogue of files with these pixels gives."""
    glyphs = open_dataset("glyphs").take(np.arange(3))
    singles = [PREPROCESSING.prepare(glyphs.encoded(index)) for index in range(3)]
    (batch,) = evaluation_batches(glyphs, PREPROCESSING).as_numpy_iterator()
    np.testing.assert_array_equal(batch, singles)


def test_a_truncated_picture_is_named(catalogue, tmp_path):
    """Whether pictures are kept in memory or not, and with the count of further ones."""
    for number in (4, 7):
        file = tmp_path / f"class {number // 3}" / f"{number}.png"
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(
        CorruptPictureError, match=r"class 1/4\.png is not a whole picture.*\(1 more like it\)"
    ):
        load_pictures(catalogue, PREPROCESSING)
    with pytest.raises(CorruptPictureError, match=r"4\.png"):
        batches_of(catalogue)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        list(evaluation_batches(catalogue, PREPROCESSING))
    assert isinstance(name_corrupt(catalogue, caught.value), CorruptPictureError)


def test_a_vanished_picture_is_named(catalogue, tmp_path):
    """A file that is gone since the folder was listed."""
    (tmp_path / "class 3" / "9.png").unlink()
    with pytest.raises(CorruptPictureError, match=r"9\.png can't be read \(No such file or directory\)"):
        load_pictures(catalogue, PREPROCESSING)


def test_another_error_than_a_corrupt_picture_is_passed_on(catalogue):
    """Where every picture decodes, the pipeline's own error stands."""
    error = RuntimeError("something else")
    assert name_corrupt(catalogue, error) is error
