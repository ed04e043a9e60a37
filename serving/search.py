"""A gallery packed into the artefact, and exact search in it; TensorFlow ops alone."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from serving.precision import reduce_precision, restore

# So many more than `top` are ranked again by their differences, which tell near-duplicates apart: a dot
# product near 1 has lost them, sqrt(2 - 2·0.9999999) being 0.0004 already.
SPARE = 16
# Rows of a gallery in reduced precision that are restored at a time.
BLOCK_ROWS = 2048
UNIT_TOLERANCE = 1e-3


class PackedGallery(tf.Module):
    """Unit vectors, labels and names as variables: a checkpoint has no limit of 2 GB, as a graph has.

    They lie row by row, [n, d], so that the vectors of a few rows are quick to gather. Reduced precision is
    restored block by block, so that it is never in memory as a whole.

    Args:
        arrays: of a checked gallery; see `serving.gallery.open_gallery`.
        top: how many neighbours to find, or all rows where there are fewer.
        precision: one of `serving.precision.PRECISIONS`.

    Raises:
        ValueError: a row is not of unit norm, or `top` or the precision is out of range.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], top: int, precision: str) -> None:
        super().__init__()
        if top < 1:
            raise ValueError(f"top must be at least 1; got {top}")
        vectors = np.asarray(arrays["embeddings"], np.float32)
        _check_unit(vectors)
        self.rows, self.dim = vectors.shape
        self.top = min(top, self.rows)
        self.precision = precision
        stored, factors = reduce_precision(vectors, precision)

        def variable(values: np.ndarray | list[bytes], name: str) -> tf.Variable:
            return tf.Variable(values, trainable=False, name=f"gallery_{name}")

        self.vectors = variable(stored, "vectors")
        self.factors = variable(factors, "factors")
        self.labels = variable(arrays["labels"].astype(np.int64), "labels")
        # Names of files need not be UTF-8.
        self.paths = variable([os.fsencode(path) for path in arrays["paths"]], "paths")
        self.class_names = variable([os.fsencode(name) for name in arrays["class_names"]], "class_names")

    def restored(self) -> np.ndarray:
        """The vectors that are searched: [n, d] float32."""
        return restore(self.vectors.numpy(), self.factors.numpy())

    def __call__(self, queries: tf.Tensor) -> dict[str, tf.Tensor]:
        """The nearest rows of each query, by Euclidean distance ascending; of equal ones the smaller first.

        Args:
            queries: [B, d] float32 of unit norm.

        Returns:
            `ids`, `labels` [B, top] int64, `distances` [B, top] float32, `paths`, `class_names` [B, top]
            string.
        """
        # Read once and handed on. tf.gather on the variable itself would be a "sparse" access, after which
        # TensorFlow copies the whole gallery each time it is read.
        vectors = tf.convert_to_tensor(self.vectors)
        scores = self._dot_products(queries, vectors)
        likely = tf.math.top_k(scores, min(self.rows, self.top + SPARE), sorted=False).indices
        # Ascending, so that of equal distances the smaller index comes first.
        likely = tf.sort(likely, axis=1)
        # Query by query, as the vectors of all queries' candidates together may take much memory.
        distances = tf.map_fn(
            lambda pair: tf.norm(self._gather(vectors, pair[1]) - pair[0], axis=1),
            (queries, likely),
            fn_output_signature=tf.TensorSpec([likely.shape[1]], tf.float32),
        )
        nearest = tf.math.top_k(-distances, self.top)
        ids = tf.gather(likely, nearest.indices, batch_dims=1)
        labels = tf.gather(self.labels, ids)
        return {
            "ids": tf.cast(ids, tf.int64),
            "labels": labels,
            "distances": tf.abs(nearest.values),  # not -0
            "paths": tf.gather(self.paths, ids),
            "class_names": tf.gather(self.class_names, labels),
        }

    def _dot_products(self, queries: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """[B, n]."""
        if self.precision == "float32":
            return tf.transpose(_product(vectors, queries))
        blocks = -(-self.rows // BLOCK_ROWS)

        def append(block: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            rows = slice(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
            part = _product(tf.cast(vectors[rows], tf.float32), queries)
            return block + 1, parts.write(block, part * self.factors[rows, tf.newaxis])

        parts = tf.TensorArray(tf.float32, blocks, infer_shape=False, element_shape=[None, None])
        _, parts = tf.while_loop(
            lambda block, _: block < blocks, append, [tf.constant(0), parts], parallel_iterations=1
        )
        return tf.ensure_shape(tf.transpose(parts.concat()), [None, self.rows])

    def _gather(self, vectors: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """[m] -> [m, d] float32."""
        return tf.cast(tf.gather(vectors, rows), tf.float32) * tf.gather(self.factors, rows)[:, tf.newaxis]


def _product(vectors: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
    """[n, d] and [B, d] -> [n, B], by the kernel that is faster on CPUs where n is by far the larger.

    The product of two matrices is quick for one query only; that of batches of matrices, here of one each,
    shares the rows out between threads.
    """
    return tf.cond(
        tf.shape(queries)[0] == 1,
        lambda: tf.transpose(tf.matmul(queries, vectors, transpose_b=True)),
        lambda: tf.matmul(vectors[tf.newaxis], queries[tf.newaxis], transpose_b=True)[0],
    )


def _check_unit(vectors: np.ndarray) -> None:
    norms = np.linalg.norm(vectors, axis=1)
    far = ~(np.abs(norms - 1) <= UNIT_TOLERANCE)  # also where it is NaN
    if far.any():
        row = int(np.argmax(far))
        raise ValueError(f"a gallery's embeddings must be of unit norm; that of row {row} is {norms[row]}")
