"""The `tf.data` pipelines: index batches -> pictures -> what `fit` and `predict` take."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from rll_tf.data.cache import PictureCache
from rll_tf.data.catalogue import Catalogue, numbered
from rll_tf.data.decode import decode
from rll_tf.data.images import Augmentation, Preprocessing
from rll_tf.data.integrity import name_corrupt
from rll_tf.data.sampler import ClassBalancedBatches
from rll_tf.progress import progress

# Resized pictures are kept in memory up to this size; above it they are decoded anew for every batch.
MEMORY_BYTES = 2 * 2**30


def class_balanced_dataset(
    pictures: Any,
    labels: npt.ArrayLike | None = None,
    classes_per_batch: int = 60,
    images_per_class: int = 3,
    *,
    seed: int = 0,
    first_step: int = 0,
) -> tf.data.Dataset:
    """C×K batches for any Keras model's `fit`, without end, of pictures from anywhere.

    Which pictures make up a batch depends on the labels, the seed and the step alone.

    Args:
        pictures: an array [n, ...]; or a function of TensorFlow ops from a picture's index, an int64 scalar,
            to the picture, such as one that reads and prepares a file; or a `tf.data.Dataset` that ends, of
            (picture, label) or of pictures in the order of `labels`, in batches or one by one, all of one
            shape. A dataset has no random access: it is read into memory once. Of labels in a dictionary, one
            for each output, the first counts.
        labels: [n] integers or strings; None where the dataset has them.
        classes_per_batch: C, how many classes a batch shows; by default the paper's.
        images_per_class: K, how many pictures of each; by default the paper's.
        seed: of the draw.
        first_step: where to begin, e.g. after a resume.

    Returns:
        A dataset of ([C·K, ...], [C·K] labels), class by class: pass `shuffle=False` and `steps_per_epoch` to
        `fit`.

    Raises:
        ValueError: there are not as many pictures as labels; labels are missing, are no integers or strings,
            or are not those of the dataset; a dataset has no end; or the sampler's bounds are not kept.
    """
    if isinstance(pictures, tf.data.Dataset):
        pictures, labels = _read(pictures, labels)
    if labels is None:
        raise ValueError("labels must be given: only a tf.data.Dataset of (picture, label) has its own")
    labels = _checked(labels)
    batches = ClassBalancedBatches(numbered(labels)[0], classes_per_batch, images_per_class, seed)
    if not callable(pictures):
        if len(pictures) != len(labels):
            raise ValueError(
                f"every picture needs one label: got {len(pictures)} pictures, {len(labels)} labels"
            )
        pictures = tf.convert_to_tensor(pictures).__getitem__
    targets = tf.constant(labels)
    return (
        _indices(batches, first_step)
        .map(lambda _, index: (pictures(index), targets[index]), num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batches.batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _checked(labels: npt.ArrayLike) -> np.ndarray:
    """Labels [n], as they are."""
    array = np.asarray(labels)
    is_list = array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)
    if not is_list or array.dtype.kind not in "iubUSO":
        raise ValueError(
            "labels must be integers or strings, one per picture, and not one-hot: "
            f"got shape {array.shape}, dtype {array.dtype}"
        )
    return array.reshape(-1)


def _read(dataset: tf.data.Dataset, given: npt.ArrayLike | None) -> tuple[np.ndarray, npt.ArrayLike | None]:
    """A dataset's pictures and labels, of one pass, since the next one may be in another order."""
    spec, count = dataset.element_spec, dataset.cardinality().numpy()
    if not isinstance(spec[0] if isinstance(spec, tuple) else spec, tf.TensorSpec):
        raise ValueError(f"a dataset must be of (picture, label) or of pictures: got elements {spec}")
    if count == tf.data.INFINITE_CARDINALITY:
        raise ValueError("pictures must be a dataset that ends: it repeats for ever")
    pictures: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    elements = dataset.as_numpy_iterator()
    for element in progress(elements, "reading pictures", total=None if count < 0 else count):
        if not isinstance(element, tuple) or len(element) == 1:
            pictures.append(element[0] if isinstance(element, tuple) else element)
            continue
        picture, label = element[:2]
        label = np.asarray(next(iter(label.values())) if isinstance(label, Mapping) else label)
        is_batch = label.ndim > 0 and label.shape[:1] == picture.shape[:1]
        pictures.extend(picture if is_batch else [picture])
        labels.extend(_checked(label if is_batch else label.reshape(1, -1)))
    if labels:
        found = np.stack(labels)
        if given is not None:
            _check_same(_checked(given), found)
        given = found
    elif given is not None and len(pictures) != len(_checked(given)) == sum(map(len, pictures)):
        pictures = [picture for batch in pictures for picture in batch]
    shapes = list(dict.fromkeys(map(np.shape, pictures)))
    if len(shapes) != 1:
        got = f"{shapes[0]} and {shapes[1]}; resize them first" if shapes else "no picture"
        raise ValueError(f"a dataset must hold pictures of one shape: got {got}")
    return np.stack(pictures), given


def _check_same(given: np.ndarray, found: np.ndarray) -> None:
    """Labels that are given must be those that the dataset yields, strings as bytes."""
    texts = tf.constant(given).numpy()
    if len(texts) != len(found) or (texts != found).any():
        differ = "" if len(texts) != len(found) else f", {np.sum(texts != found)} of them different"
        raise ValueError(
            f"labels must be those that the dataset yields, in its order: got {len(texts)} for {len(found)} "
            f"pictures{differ}; leave labels out, they are read with the pictures"
        )


def _indices(batches: ClassBalancedBatches, first_step: int) -> tf.data.Dataset:
    """A picture's position, counted through all batches of all workers, and its index: two int64 scalars.

    Not `from_generator`, which makes the process return every freed tensor to the system: a training step
    takes half as long again.
    """

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        indices = tf.numpy_function(batches.__getitem__, [step], tf.int64)
        first = step * batches.global_batch_size + batches.first
        size = batches.batch_size
        return first + tf.range(size, dtype=tf.int64), tf.ensure_shape(indices, [size])

    return tf.data.Dataset.range(first_step, np.iinfo(np.int64).max).map(batch).unbatch()


def training_batches(
    catalogue: Catalogue,
    batches: ClassBalancedBatches,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    levels: Sequence[str],
    *,
    first_step: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    cache: PictureCache | None = None,
    augment_batch: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tf.data.Dataset:
    """C×K batches for `fit`, without end: pictures and one copy of the labels for each output level.

    A picture is loaded, cropped and augmented on its own, with random numbers that depend on the sampler's
    seed, the step and the picture's position in the batch of all workers. So batch `step` is the same however
    many threads work and wherever training was resumed, and a worker's shard is its part of the whole batch.

    Resized pictures are kept in memory if all of them fit, else read from `cache` where there is one, else
    read and decoded for every batch. Crops of random scale and aspect are cut from the whole picture, so
    with these every picture is decoded every time.

    Args:
        catalogue: the training pictures; `batches` holds indices into it.
        batches: the sampler.
        preprocessing: resizing, crop size and normalisation.
        augmentation: random changes to each picture.
        levels: the model's outputs; Keras needs one label for each.
        first_step: where to begin, e.g. after a resume.
        memory_bytes: keep resized pictures in memory if all of them take no more than this.
        cache: keeps resized pictures on disk.
        augment_batch: a further change, from [N, input_px, input_px, 3] float32 of 0 to 255 to the same,
            such as a layer of KerasCV. Its randomness is its own: many such layers keep a state, and their
            batches are then not a function of the step.

    Returns:
        A dataset of ([N, input_px, input_px, 3] float32, {level: [N] int64}).

    Raises:
        CorruptPictureError: a picture can't be decoded, if pictures are kept in memory or on disk; otherwise
            iteration raises TensorFlow's error: pass it to `name_corrupt`.
    """
    labels = tf.constant(catalogue.labels, tf.int64)
    if augmentation.scale_and_aspect:
        load = _source(catalogue, preprocessing)
    elif len(catalogue) * preprocessing.resize_px**2 * 3 <= memory_bytes:
        pictures = tf.constant(load_pictures(catalogue, preprocessing, cache))
        load = pictures.__getitem__
    else:
        load = _source(catalogue, preprocessing, cache)

    # Cropped pictures are normalised one by one, which stays in the processor's cache, unless others follow.
    by_batch = augmentation.is_geometric or augment_batch is not None

    def prepare(number: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        draws = augmentation.draw(tf.stack([batches.seed, number]))
        image = augmentation.crop(load(index), preprocessing, draws)
        return image if by_batch else preprocessing.normalise(image), draws, labels[index]

    def finish(images: tf.Tensor, draws: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, dict]:
        if by_batch:
            images = augmentation.distort(images, draws)
            images = preprocessing.normalise(augment_batch(images) if augment_batch else images)
        return images, dict.fromkeys(levels, targets)

    return (
        _indices(batches, first_step)
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batches.batch_size, drop_remainder=True)
        .map(finish, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(
    catalogue: Catalogue,
    preprocessing: Preprocessing,
    batch_size: int = 256,
    cache: PictureCache | None = None,
) -> tf.data.Dataset:
    """All pictures once, in the catalogue's order, centre-cropped: [B, input_px, input_px, 3] float32."""
    load = _source(catalogue, preprocessing, cache)
    return (
        tf.data.Dataset.range(len(catalogue))
        .map(
            lambda index: preprocessing.normalise(
                preprocessing.fit_window(load(index), preprocessing.centre)
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .batch(batch_size)
        .prefetch(2)
    )


def load_pictures(
    catalogue: Catalogue, preprocessing: Preprocessing, cache: PictureCache | None = None
) -> np.ndarray:
    """Read, decode and resize every picture: [n, resize_px, resize_px, 3] uint8.

    Raises:
        CorruptPictureError: a picture can't be read or decoded; it is named.
    """
    side = preprocessing.resize_px
    load = _source(catalogue, preprocessing, cache)
    dataset = tf.data.Dataset.range(len(catalogue)).map(
        lambda index: preprocessing.fit(load(index)), num_parallel_calls=tf.data.AUTOTUNE
    )
    try:
        resized = dataset.prefetch(256).as_numpy_iterator()
        pictures = progress(resized, "reading pictures", total=len(catalogue))
        return np.fromiter(pictures, np.dtype((np.uint8, (side, side, 3))), len(catalogue))
    except tf.errors.OpError as error:
        raise name_corrupt(catalogue, error) from error


def _source(
    catalogue: Catalogue, preprocessing: Preprocessing, cache: PictureCache | None = None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """What loads a picture by its index, [h, w, 1 or 3] uint8: resized from the cache, otherwise whole."""
    if catalogue.pixels is not None:
        return tf.constant(catalogue.pixels).__getitem__
    if cache is None:
        paths = tf.constant([os.fsencode(path) for path in catalogue.paths], tf.string)
        return lambda index: decode(tf.io.read_file(paths[index]))
    try:
        cached = cache.keep(catalogue.paths, preprocessing)
    except (OSError, tf.errors.OpError) as error:
        raise name_corrupt(catalogue, error) from error
    files = tf.constant([os.fsencode(file) for file in cached], tf.string)
    shape = [preprocessing.resize_px, preprocessing.resize_px, 3]
    return lambda index: tf.reshape(tf.io.decode_raw(tf.io.read_file(files[index]), tf.uint8), shape)
