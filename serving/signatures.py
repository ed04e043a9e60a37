"""The functions of an artefact."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from rll_tf.data import Preprocessing
from serving.client import DEFAULT_SIGNATURE, PIXELS_SIGNATURE, SEARCH_SIGNATURE
from serving.guard import Limits
from serving.search import PackedGallery

DEFAULT, PIXELS, SEARCH = DEFAULT_SIGNATURE, PIXELS_SIGNATURE, SEARCH_SIGNATURE
Outputs = dict[str, tf.Tensor]
Part = Callable[[tf.Tensor], tf.Tensor]
Signatures = dict[str, tuple[Callable[[tf.Tensor], Outputs], tf.TensorSpec]]


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
    | `pixels` | `pixels` [B, s, s, 3] uint8, RGB, s = `resize_px` | `embedding` [B, d] float32, all levels |
    | `search`, with a gallery | `images` | those of `PackedGallery`: `ids`, `labels`, `distances`, … |

    Embeddings have unit norm. Every function rejects what `limits` do not allow. A server that joins
    requests rejects all of them where their pixels differ in size, so these have one size.

    Args:
        model: from [B, h, w, 3] to `{level: [B, d]}`.
        preprocessing: what the model was trained with.
        limits: the largest request.
        gallery: what `search` searches.
        gallery_level: the level that its vectors are embeddings of; None for all concatenated.
    """
    parts = _parts(model)

    def from_files(part: Part) -> Callable[[tf.Tensor], Outputs]:
        return lambda images: {"embedding": part(_prepared(images, preprocessing, limits))}

    def from_pixels(pixels: tf.Tensor) -> Outputs:
        fitted = limits.check_count(pixels, "pixels")
        prepared = preprocessing.normalise(preprocessing.window(fitted, preprocessing.centre))
        return {"embedding": parts[DEFAULT](prepared)}

    images = tf.TensorSpec([None], tf.string, name="images")
    found: Signatures = {name: (from_files(part), images) for name, part in parts.items()}
    side = preprocessing.resize_px
    found[PIXELS] = from_pixels, tf.TensorSpec([None, side, side, 3], tf.uint8, name="pixels")
    if gallery is not None:
        embed, _ = found[gallery_level or DEFAULT]
        found[SEARCH] = (lambda images: gallery(embed(images)["embedding"])), images
    return found


def _parts(model: keras.Model) -> dict[str, Part]:
    """Signature -> what embeds prepared pictures."""

    def concatenated(pictures: tf.Tensor) -> tf.Tensor:
        levels = model(pictures, training=False)
        joined = tf.concat([levels[level] for level in model.output], axis=1)
        return tf.math.l2_normalize(joined, axis=1)

    def one(level: str) -> Part:
        # A model of its own, so that the level's signature holds only the layers it needs.
        part = keras.Model(model.input, model.output[level])
        return lambda pictures: part(pictures, training=False)

    return {DEFAULT: concatenated, **{level: one(level) for level in model.output}}


def _prepared(images: tf.Tensor, preprocessing: Preprocessing, limits: Limits) -> tf.Tensor:
    """[B] picture files' bytes -> [B, input_px, input_px, 3] float32."""
    images = limits.check_count(images, "images")
    side = preprocessing.input_px
    return tf.map_fn(
        lambda picture: limits.prepare(picture[0], picture[1], preprocessing),
        (images, tf.range(tf.size(images))),
        fn_output_signature=tf.TensorSpec([side, side, 3], tf.float32),
        parallel_iterations=1,
    )
