"""The `tf.data` pipelines: index batches -> pictures -> what `fit` and `predict` take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from rll_tf.data.catalogue import Catalogue
from rll_tf.data.images import Augmentation, Preprocessing, decode
from rll_tf.data.sampler import ClassBalancedBatches

# Resized pictures are kept in memory up to this size; above it they are decoded anew for every batch.
MEMORY_BYTES = 2 * 2**30


class CorruptPictureError(ValueError):
    """A picture file can't be read or decoded; the message names it."""


def training_batches(
    catalogue: Catalogue,
    batches: ClassBalancedBatches,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    levels: Sequence[str],
    *,
    first_step: int = 0,
    memory_bytes: int = MEMORY_BYTES,
) -> tf.data.Dataset:
    """C×K batches for `fit`, without end: pictures and one copy of the labels for each output level.

    Batch `step` depends on the sampler's seed and on `step` alone, however many threads work and wherever
    training was taken up again.

    Args:
        catalogue: the training pictures; `batches` holds indices into it.
        batches: the sampler.
        preprocessing: resizing, crop size and normalisation.
        augmentation: random changes, drawn from (seed, step).
        levels: the model's outputs; Keras wants one label for each.
        first_step: where to begin, e.g. after a resume.
        memory_bytes: keep resized pictures in memory if all of them take no more than this.

    Returns:
        A dataset of ([N, input_px, input_px, 3] float32, {level: [N] int64}).

    Raises:
        CorruptPictureError: a picture can't be decoded, if pictures are kept in memory; otherwise
            iteration raises TensorFlow's error: pass it to `name_corrupt`.
    """
    labels = tf.constant(catalogue.labels, tf.int64)

    def index_batches() -> Iterator[tuple[int, np.ndarray]]:
        yield from enumerate(batches.starting_at(first_step), first_step)

    size = batches.batch_size
    dataset = tf.data.Dataset.from_generator(
        index_batches,
        output_signature=(tf.TensorSpec([], tf.int64), tf.TensorSpec([size], tf.int64)),
    )
    if len(catalogue) * preprocessing.resize_px**2 * 3 <= memory_bytes:
        pictures = tf.constant(load_pictures(catalogue, preprocessing))
        dataset = dataset.map(lambda step, indices: (step, indices, tf.gather(pictures, indices)))
    else:
        load = _loader(catalogue, preprocessing)
        dataset = dataset.map(lambda step, indices: (tf.fill([size], step), indices)).unbatch()
        dataset = dataset.map(lambda step, i: (step, i, load(i)), num_parallel_calls=tf.data.AUTOTUNE)
        dataset = dataset.batch(size).map(lambda steps, indices, images: (steps[0], indices, images))

    def finish(step: tf.Tensor, indices: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, dict]:
        images = augmentation(images, preprocessing, tf.stack([batches.seed, step]))
        target = tf.gather(labels, indices)
        return preprocessing.normalise(images), dict.fromkeys(levels, target)

    return dataset.map(finish, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    catalogue: Catalogue, preprocessing: Preprocessing, batch_size: int = 256
) -> tf.data.Dataset:
    """All pictures once, in the catalogue's order, centre-cropped: [B, input_px, input_px, 3] float32."""
    load = _loader(catalogue, preprocessing)
    return (
        tf.data.Dataset.range(len(catalogue))
        .map(load, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .map(lambda images: preprocessing.normalise(preprocessing.centre_crop(images)))
        .prefetch(2)
    )


def load_pictures(catalogue: Catalogue, preprocessing: Preprocessing) -> np.ndarray:
    """Read, decode and resize every picture: [n, resize_px, resize_px, 3] uint8.

    Raises:
        CorruptPictureError: a picture can't be read or decoded; it is named.
    """
    side = preprocessing.resize_px
    pictures = np.empty([len(catalogue), side, side, 3], np.uint8)
    dataset = tf.data.Dataset.range(len(catalogue)).map(
        _loader(catalogue, preprocessing), num_parallel_calls=tf.data.AUTOTUNE
    )
    try:
        first = 0
        for batch in dataset.batch(256).prefetch(2).as_numpy_iterator():
            pictures[first : first + len(batch)] = batch
            first += len(batch)
    except tf.errors.OpError as error:
        raise name_corrupt(catalogue, error) from error
    return pictures


def name_corrupt(catalogue: Catalogue, error: Exception) -> Exception:
    """Find which picture made a pipeline fail: TensorFlow's own message does not say.

    Returns:
        A `CorruptPictureError` that names the first bad picture and how many there are, or `error` itself
        if every picture decodes.
    """
    bad = []
    for index, path in enumerate(catalogue.paths):
        try:
            decode(catalogue.encoded(index))
        except tf.errors.InvalidArgumentError:
            bad.append(f"{path} is not a whole picture that TensorFlow can decode")
        except OSError as reason:
            bad.append(f"{path} can't be read ({reason.strerror})")
    if not bad:
        return error
    others = f" ({len(bad) - 1} more like it)" if len(bad) > 1 else ""
    return CorruptPictureError(bad[0] + others)


def _loader(catalogue: Catalogue, preprocessing: Preprocessing) -> Callable[[tf.Tensor], tf.Tensor]:
    """Index -> resized picture, from memory or from its file."""
    if catalogue.pixels is not None:
        pixels = tf.constant(catalogue.pixels)
        return lambda index: preprocessing.fit(pixels[index])
    paths = tf.constant([path.encode("utf-8", "surrogateescape") for path in catalogue.paths])
    return lambda index: preprocessing.fit(decode(tf.io.read_file(paths[index])))
