"""The `tf.data` pipelines: index batches -> pictures -> what `fit` and `predict` take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from rll_tf.data.cache import PictureCache
from rll_tf.data.catalogue import Catalogue, printable
from rll_tf.data.decode import decode
from rll_tf.data.images import Augmentation, Preprocessing
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
    cache: PictureCache | None = None,
    augment_batch: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tf.data.Dataset:
    """C×K batches for `fit`, without end: pictures and one copy of the labels for each output level.

    Batch `step` depends on the sampler's seed and on `step` alone, however many threads work and wherever
    training was taken up again. Where the sampler is one worker's shard, so is the batch.

    Resized pictures are kept in memory if all of them fit, else read from `cache` where there is one, else
    read and decoded for every batch. Crops of random scale and aspect are cut from the whole picture, so
    with these every picture is decoded every time.

    Args:
        catalogue: the training pictures; `batches` holds indices into it.
        batches: the sampler.
        preprocessing: resizing, crop size and normalisation.
        augmentation: random changes, drawn from (seed, step).
        levels: the model's outputs; Keras wants one label for each.
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
    size, part = batches.batch_size, (batches.first, batches.global_batch_size)

    def index_batches() -> Iterator[tuple[int, np.ndarray]]:
        yield from enumerate(batches.starting_at(first_step), first_step)

    dataset = tf.data.Dataset.from_generator(
        index_batches,
        output_signature=(tf.TensorSpec([], tf.int64), tf.TensorSpec([size], tf.int64)),
    )

    def target(indices: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict.fromkeys(levels, tf.gather(labels, indices))

    def finish(step: tf.Tensor, indices: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, dict]:
        images = augmentation(images, preprocessing, tf.stack([batches.seed, step]), part)
        if augment_batch is not None:
            images = augment_batch(images)
        return preprocessing.normalise(images), target(indices)

    in_memory = len(catalogue) * preprocessing.resize_px**2 * 3 <= memory_bytes
    in_memory = in_memory and not augmentation.scale_and_aspect
    # Picture by picture as far as possible: what fits the processor's cache is several times as fast.
    one_by_one = not augmentation.is_geometric and augment_batch is None
    if in_memory and not one_by_one:
        pictures = tf.constant(load_pictures(catalogue, preprocessing, cache))
        dataset = dataset.map(lambda step, indices: (step, indices, tf.gather(pictures, indices)))
        return dataset.map(finish, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    if augmentation.scale_and_aspect:
        decoded = _decoder(catalogue)
    elif one_by_one:
        window = _window_loader(catalogue, preprocessing, cache, in_memory)
    else:
        fitted = _loader(catalogue, preprocessing, cache)

    def load(step: tf.Tensor, index: tf.Tensor, place: tf.Tensor, corner: tf.Tensor) -> tf.Tensor:
        if augmentation.scale_and_aspect:
            seed = tf.random.fold_in(tf.stack([batches.seed, step]), place)
            return augmentation.scaled_crop(decoded(index), preprocessing, seed)
        return window(index, corner) if one_by_one else fitted(index)

    def spread(step: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        seed = tf.stack([batches.seed, step])
        corners, mirrored = augmentation.places(size, preprocessing, seed, part)
        place = batches.first + tf.range(size, dtype=tf.int64)
        return tf.fill([size], step), indices, place, corners, mirrored

    def one(
        step: tf.Tensor, index: tf.Tensor, place: tf.Tensor, corner: tf.Tensor, mirrored: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = load(step, index, place, corner)
        if one_by_one:
            image = preprocessing.normalise(augmentation.turn(image, mirrored))
        return step, index, image

    dataset = dataset.map(spread).unbatch().map(one, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(size, drop_remainder=True)
    if one_by_one:
        dataset = dataset.map(lambda _, indices, images: (images, target(indices)))
    else:
        dataset = dataset.map(
            lambda steps, indices, images: finish(steps[0], indices, images),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    return dataset.prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    catalogue: Catalogue,
    preprocessing: Preprocessing,
    batch_size: int = 256,
    cache: PictureCache | None = None,
) -> tf.data.Dataset:
    """All pictures once, in the catalogue's order, centre-cropped: [B, input_px, input_px, 3] float32."""
    window = _window_loader(catalogue, preprocessing, cache)
    return (
        tf.data.Dataset.range(len(catalogue))
        .map(
            lambda index: preprocessing.normalise(window(index, preprocessing.centre)),
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
    pictures = np.empty([len(catalogue), side, side, 3], np.uint8)
    dataset = tf.data.Dataset.range(len(catalogue)).map(
        _loader(catalogue, preprocessing, cache), num_parallel_calls=tf.data.AUTOTUNE
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
    bad = [reason for i in range(len(catalogue)) if (reason := unreadable(catalogue, i)) is not None]
    if not bad:
        return error
    others = f" ({len(bad) - 1} more like it)" if len(bad) > 1 else ""
    return CorruptPictureError(bad[0] + others)


def unreadable(catalogue: Catalogue, index: int) -> str | None:
    """Why picture `index` can't be had, in one line that names it; None where it can."""
    path = printable(catalogue.paths[index])
    try:
        decode(catalogue.encoded(index))
    except tf.errors.InvalidArgumentError:
        return f"{path} is not a whole picture that TensorFlow can decode"
    except OSError as reason:
        return f"{path} can't be read ({reason.strerror})"
    return None


def _decoder(catalogue: Catalogue) -> Callable[[tf.Tensor], tf.Tensor]:
    """Index -> whole picture, [h, w, 1 or 3] uint8, from memory or from its file."""
    if catalogue.pixels is not None:
        pixels = tf.constant(catalogue.pixels)
        return lambda index: pixels[index]
    paths = tf.constant([os.fsencode(path) for path in catalogue.paths], tf.string)
    return lambda index: decode(tf.io.read_file(paths[index]))


def _loader(
    catalogue: Catalogue, preprocessing: Preprocessing, cache: PictureCache | None = None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Index -> resized picture, from memory, from the cache or from its file."""
    decoded = _decoder(catalogue)
    if cache is None or catalogue.pixels is not None:
        return lambda index: preprocessing.fit(decoded(index))
    try:
        kept = cache.keep(catalogue.paths, preprocessing)
    except (OSError, tf.errors.OpError) as error:
        raise name_corrupt(catalogue, error) from error
    files = tf.constant([os.fsencode(file) for file in kept], tf.string)
    shape = [preprocessing.resize_px, preprocessing.resize_px, 3]
    return lambda index: tf.reshape(tf.io.decode_raw(tf.io.read_file(files[index]), tf.uint8), shape)


def _window_loader(
    catalogue: Catalogue,
    preprocessing: Preprocessing,
    cache: PictureCache | None = None,
    in_memory: bool = False,
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Index and corner -> the window of the resized picture there, the same wherever it comes from."""
    if in_memory:
        pictures = tf.constant(load_pictures(catalogue, preprocessing, cache))
        return lambda index, corner: preprocessing.window(pictures[index], corner)
    if cache is None or catalogue.pixels is not None:
        decoded = _decoder(catalogue)
        return lambda index, corner: preprocessing.fit_window(decoded(index), corner)
    fitted = _loader(catalogue, preprocessing, cache)
    return lambda index, corner: preprocessing.window(fitted(index), corner)
