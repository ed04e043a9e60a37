"""A catalogue through a model: its embeddings, and how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from rll_tf.data import Catalogue, PictureCache, Preprocessing, evaluation_batches, name_corrupt
from rll_tf.evaluation import level_metrics
from rll_tf.models import without_proxies
from rll_tf.progress import progress


def embed(
    model: keras.Model,
    catalogue: Catalogue,
    preprocessing: Preprocessing,
    *,
    cache: PictureCache | None = None,
) -> dict[str, np.ndarray]:
    """Embed every picture, in the catalogue's order: `{level: [n, embedding_dim] float32}`.

    Raises:
        CorruptPictureError: a picture can't be read or decoded; it is named.
    """
    model = without_proxies(model)
    # Not `model.predict`, which compiles anew for the shorter last batch. A concrete function, since a new
    # one each time is meant.
    run = tf.function(
        lambda pictures: model(pictures, training=False),
        input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)],
    ).get_concrete_function()
    batches: list[dict[str, np.ndarray]] = []
    try:
        for pictures in progress(evaluation_batches(catalogue, preprocessing, cache=cache), "embedding"):
            batches.append({level: values.numpy() for level, values in run(pictures).items()})
    except tf.errors.OpError as error:
        raise name_corrupt(catalogue, error) from error
    return {level: np.concatenate([batch[level] for batch in batches]) for level in batches[0]}


def evaluate(
    model: keras.Model,
    catalogue: Catalogue,
    preprocessing: Preprocessing,
    *,
    clustering: bool = True,
    cache: PictureCache | None = None,
) -> dict[str, dict[str, float]]:
    """The retrieval metrics of each of the model's levels and of their concatenation on these pictures."""
    embeddings = embed(model, catalogue, preprocessing, cache=cache)
    return evaluate_embeddings(embeddings, catalogue.labels, clustering=clustering)


def evaluate_embeddings(
    embeddings: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    clustering: bool = True,
    in_gallery: np.ndarray | None = None,
    recall_at: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, dict[str, float]]:
    """The retrieval metrics of each level, and of their concatenation under `"concat"`.

    Args:
        embeddings: level -> [n, d].
        labels: [n].
        clustering: whether to cluster for NMI and pairwise F1, the slow part.
        in_gallery: [n] bool, which pictures are the gallery, the others being the queries; None where every
            picture is a query against all the others.
        recall_at: the Ks of Recall@K.
    """
    if in_gallery is None:
        return level_metrics(embeddings, labels, recall_at, clustering=clustering)
    return level_metrics(
        {level: values[~in_gallery] for level, values in embeddings.items()},
        labels[~in_gallery],
        recall_at,
        clustering=clustering,
        gallery={level: values[in_gallery] for level, values in embeddings.items()},
        gallery_labels=labels[in_gallery],
    )
