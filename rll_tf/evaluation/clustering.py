"""Clustering quality: do k-means clusters of the embeddings agree with the classes?"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import pair_confusion_matrix
from threadpoolctl import threadpool_limits

from rll_tf.progress import waiting


def cluster(embeddings: np.ndarray, clusters: int, seed: int = 0) -> np.ndarray:
    """Exact k-means (scikit-learn's, Lloyd's iterations from one greedy k-means++ start).

    Args:
        embeddings: [n, d] finite numbers.
        clusters: 1 to n. Fewer come out where there are fewer distinct embeddings.
        seed: of the start. Equal seeds give equal clusters: one OpenMP thread adds the means up, because the
            order in which several would finish changes the last bits, and with them now and then a cluster.

    Returns:
        [n] cluster ids.
    """
    if embeddings.dtype.kind != "f":
        embeddings = embeddings.astype(np.float32)
    model = KMeans(clusters, n_init=1, random_state=seed)
    with (
        waiting(f"k-means, {clusters:,} clusters"),
        threadpool_limits(1, user_api="openmp"),
        warnings.catch_warnings(),
    ):
        # Collapsed embeddings have fewer distinct points than classes; the scores say so clearly enough.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit_predict(embeddings)


def clustering_scores(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """How well a clustering agrees with the classes, from their contingency table.

    - `nmi` = 2 I(Ω; C) / (H(Ω) + H(C)); 1 where both are one group only.
    - `pairwise_f1` = 2 TP / (2 TP + FP + FN) over pairs of pictures, TP those in one class and one cluster,
      FP in one cluster only, FN in one class only; 1 where no pair is in either, since nothing disagrees.

    Args:
        labels: [n] class indices.
        clusters: [n] cluster ids.
    """
    (_, false_positive), (false_negative, true_positive) = pair_confusion_matrix(labels, clusters).tolist()
    disagree = false_positive + false_negative
    f1 = 2 * true_positive / (2 * true_positive + disagree) if true_positive or disagree else 1.0
    nmi = float(normalized_mutual_info_score(labels, clusters, average_method="arithmetic"))
    return {"nmi": min(1.0, max(0.0, nmi)), "pairwise_f1": f1}
