"""The functions that an artefact answers with."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from rll_tf.data import Preprocessing
from serving.guard import Limits
from serving.search import PackedGallery

DEFAULT, PIXELS, SEARCH = "serving_default", "pixels", "search"
Answer = dict[str, tf.Tensor]
Signatures = dict[str, tuple[Callable[[tf.Tensor], Answer], tf.TensorSpec]]


def signatures(
    model: keras.Model,
    preprocessing: Preprocessing,
    limits: Limits,
    gallery: PackedGallery | None = None,
    gallery_level: str | None = None,
) -> Signatures:
    """Each signature's function and its one input.

    | name | input | output |
    |---|---|---|
    | `serving_default` | `images` [B] string, picture files' bytes | `embedding` [B, d] float32, all levels |
    | each level's | `images` | `embedding` of that level, by the layers it needs alone |
    | `pixels` | `pixels` [B, h, w, 3] uint8, RGB, of one size | `embedding` [B, d] float32, all levels |
    | `search`, with a gallery | `images` | what `PackedGallery` gives: `ids`, `labels`, `distances`, … |

    Embeddings have unit norm. Every function refuses what `limits` do not allow.

    Args:
        model: from [B, h, w, 3] to `{level: [B, d]}`.
        preprocessing: what the model was trained with.
        limits: the largest request.
        gallery: what `search` searches.
        gallery_level: the level that its vectors are embeddings of; None for all concatenated.
    """
    parts = _parts(model)

    def from_files(part: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda images: part(_prepared(images, preprocessing, limits))

    def embedding(part: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], Answer]:
        return lambda values: {"embedding": part(values)}

    def from_pixels(pixels: tf.Tensor) -> tf.Tensor:
        fitted = preprocessing.fit(limits.check_pixels(pixels, preprocessing.resize_px))
        return parts[None](preprocessing.normalise(preprocessing.window(fitted, preprocessing.centre)))

    images = tf.TensorSpec([None], tf.string, name="images")
    pixels = tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels")
    found: Signatures = {
        level or DEFAULT: (embedding(from_files(part)), images) for level, part in parts.items()
    }
    found[PIXELS] = embedding(from_pixels), pixels
    if gallery is not None:
        embed = from_files(parts[gallery_level])
        found[SEARCH] = (lambda images: gallery(embed(images))), images
    return found


def _parts(model: keras.Model) -> dict[str | None, Callable[[tf.Tensor], tf.Tensor]]:
    """What embeds prepared pictures: all levels concatenated under None, and each level."""

    def concatenated(pictures: tf.Tensor) -> tf.Tensor:
        levels = model(pictures, training=False)
        joined = tf.concat([levels[level] for level in model.output], axis=1)
        return tf.math.l2_normalize(joined, axis=1)

    def one(level: str) -> Callable[[tf.Tensor], tf.Tensor]:
        # A model of its own, so that the level's signature holds only the layers it needs.
        part = keras.Model(model.input, model.output[level])
        return lambda pictures: part(pictures, training=False)

    return {None: concatenated, **{level: one(level) for level in model.output}}


def _prepared(images: tf.Tensor, preprocessing: Preprocessing, limits: Limits) -> tf.Tensor:
    """[B] picture files' bytes -> [B, input_px, input_px, 3] float32."""
    images = limits.check_count(images, "images")
    side = preprocessing.input_px
    return tf.map_fn(
        lambda picture: preprocessing.prepare(
            limits.check_encoded(picture[0], picture[1], preprocessing.resize_px)
        ),
        (images, tf.range(tf.size(images))),
        fn_output_signature=tf.TensorSpec([side, side, 3], tf.float32),
    )
