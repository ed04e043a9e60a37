"""Retrieval metrics of a validation set while `fit` runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rll_tf.evaluation.metrics import CONCAT, level_metrics, retrieval_metrics
from rll_tf.progress import progress


class RetrievalMetrics(keras.callbacks.Callback):
    """Embeds a validation set after epochs of `fit` and puts its `retrieval_metrics` into the logs.

    A model with one output gives `val_recall@1`, `val_recall@2` …, `val_map@r` and `val_r_precision`. One
    with several, such as `low` and `high`, gives `val_low_recall@1`, `val_high_recall@1` … for each, and
    `val_recall@1` … of all of them side by side.

    Put it before the callbacks that read the logs, as Keras calls them in the order of the list:

        callbacks=[
            RetrievalMetrics(pictures, labels),
            keras.callbacks.EarlyStopping("val_recall@1", mode="max", patience=5),
        ]

    The history and the progress bar come last in any case. Give `mode="max"`: Keras doesn't know which way is
    better. In an epoch without an evaluation the names are missing from the logs, as under `fit`'s
    `validation_freq`; callbacks that need them then warn and wait.

    The model is called for inference and its weights stay as they are. Under a `tf.distribute` strategy one
    device embeds all.

    Args:
        pictures: an array [n, ...] of what the model takes, or a `tf.data.Dataset` that ends: of (picture,
            label) in batches or one by one, or where `labels` are given of batches of pictures, such as
            `rll_tf.data.evaluation_batches(catalogue, preprocessing)` with `catalogue.labels`. Of labels in a
            dictionary, one for each output, the first counts. A dataset is read anew every time; its
            `cache()` keeps it.
        labels: [n] integers or strings; None where the dataset has them.
        gallery: what is searched, as `pictures`; the pictures are then queries against it alone. None: every
            picture is a query against all the others.
        gallery_labels: as `labels`, of the gallery.
        outputs: the names of the outputs that are embeddings, where the model has others too; None: all.
        every: how many epochs from one evaluation to the next; the first and the last epoch are always
            evaluated.
        recall_at: the Ks of Recall@K.
        normalize: divide embeddings by their norms first, each output's on its own. Give what the loss has:
            `rll_tf.RankedListLoss` normalises by default.
        clustering: whether to add `val_nmi` and `val_pairwise_f1`, which take long with many classes.
        batch_size: how many pictures of an array, or of a dataset without batches, go through the model at
            once.

    Attributes:
        results: what `compute` returned last.

    Raises:
        TypeError: pictures are neither an array nor a dataset.
        ValueError: labels are missing, `every` is below 1, or a dataset has no end.
    """

    def __init__(
        self,
        pictures: Any,
        labels: Any = None,
        *,
        gallery: Any = None,
        gallery_labels: Any = None,
        outputs: Sequence[str] | None = None,
        every: int = 1,
        recall_at: Sequence[int] = (1, 2, 4, 8),
        normalize: bool = True,
        clustering: bool = False,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1: got {every!r}")
        self.pictures = _Pictures(pictures, labels, batch_size, "pictures")
        self.gallery = None if gallery is None else _Pictures(gallery, gallery_labels, batch_size, "gallery")
        self.outputs, self.every, self.recall_at = outputs, every, recall_at
        self.normalize, self.clustering = normalize, clustering
        self.results: dict[str, dict[str, float]] = {}

    def set_model(self, model: keras.Model) -> None:
        """Take the model that is trained."""
        super().set_model(model)
        self._embed = tf.function(lambda pictures: model(pictures, training=False), reduce_retracing=True)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """The next epoch is the first."""
        self._is_first = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the metrics into the logs, if this epoch's turn has come."""
        number, is_first, self._is_first = epoch + 1, self._is_first, False
        if not (is_first or number % self.every == 0 or number == self.params.get("epochs")):
            return
        self.results = self.compute()
        for output, metrics in self.results.items():
            prefix = "val_" if output == CONCAT else f"val_{output}_"
            (logs if logs is not None else {}).update(
                {prefix + name: value for name, value in metrics.items()}
            )

    def compute(self) -> dict[str, dict[str, float]]:
        """The metrics of the model as it is now: of each of several outputs by name, of all as `"concat"`."""
        embeddings, labels = self.pictures.embeddings(self._levels)
        common: dict[str, Any] = {"recall_at": self.recall_at, "clustering": self.clustering}
        gallery = None
        if self.gallery is not None:
            gallery, common["gallery_labels"] = self.gallery.embeddings(self._levels)
        if len(embeddings) > 1:
            return level_metrics(embeddings, labels, gallery=gallery, normalize=self.normalize, **common)
        (values,) = embeddings.values()
        searched = None if gallery is None else next(iter(gallery.values()))
        metrics = retrieval_metrics(values, labels, gallery=searched, normalize=self.normalize, **common)
        return {CONCAT: metrics}

    def _levels(self, pictures: Any) -> dict[str, np.ndarray]:
        """The embeddings of a batch, by output."""
        found = self._embed(pictures)
        if isinstance(found, (list, tuple)):
            found = dict(zip(self.model.output_names, found, strict=True))
        elif not isinstance(found, Mapping):
            found = {CONCAT: found}
        names = found if self.outputs is None else self.outputs
        if missing := set(names) - set(found):
            raise ValueError(f"outputs must be some of {', '.join(found)}: got {', '.join(sorted(missing))}")
        return {name: tf.cast(found[name], tf.float32).numpy() for name in names}


class _Pictures:
    """Pictures and their labels, batch by batch."""

    def __init__(self, pictures: Any, labels: Any, batch_size: int, name: str) -> None:
        if isinstance(pictures, tf.data.Dataset):
            if pictures.cardinality() == tf.data.INFINITE_CARDINALITY:
                raise ValueError(f"{name} must be a dataset that ends: it repeats for ever")
            if labels is None:
                pictures = _batched(pictures, batch_size, name)
        elif hasattr(pictures, "shape") and labels is not None:
            pictures = _Slices(pictures, batch_size)
        elif hasattr(pictures, "shape"):
            raise ValueError(f"{name} in an array need labels")
        else:
            raise TypeError(
                f"{name} must be an array or a tf.data.Dataset: got {type(pictures).__name__}; of a "
                "catalogue pass rll_tf.data.evaluation_batches(catalogue, preprocessing) and catalogue.labels"
            )
        self.batches: Iterable[Any] = pictures
        self.labels = labels

    def embeddings(self, embed: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Embeddings [n, d] by output, and labels [n]."""
        parts, labels = [], []
        for batch in progress(self.batches, "embedding"):
            if self.labels is None:
                given = batch[1]
                given = next(iter(given.values())) if isinstance(given, Mapping) else given
                labels.append(np.reshape(given, [-1]))
            parts.append(embed(batch[0] if isinstance(batch, tuple) else batch))
        if not parts:
            raise ValueError("a validation set must hold pictures: it is empty")
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return whole, np.reshape(np.concatenate(labels) if self.labels is None else self.labels, [-1])


class _Slices:
    """An array in batches."""

    def __init__(self, array: Any, batch_size: int) -> None:
        self.array, self.batch_size = array, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.array) / self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self)):
            yield self.array[number * self.batch_size : (number + 1) * self.batch_size]


def _batched(dataset: tf.data.Dataset, batch_size: int, name: str) -> tf.data.Dataset:
    """A dataset of (pictures, labels) in batches, whether it came so or not."""
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2:
        raise ValueError(f"{name} must be a dataset of (picture, label), or labels must be given")
    labels = next(iter(spec[1].values())) if isinstance(spec[1], Mapping) else spec[1]
    return dataset.batch(batch_size) if labels.shape.rank == 0 else dataset
