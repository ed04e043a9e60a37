"""Clustering quality: do k-means clusters of the embeddings agree with the classes?"""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import pair_confusion_matrix
from threadpoolctl import threadpool_limits

from rll_tf.progress import waiting

# Embeddings times clusters: CUB-200's test classes have half a million, SOP's 700 million.
MANY = 2**24
ITERATIONS = 25


def cluster(embeddings: np.ndarray, clusters: int, seed: int = 0) -> np.ndarray:
    """k-means with one start.

    Up to `MANY` embeddings times clusters, scikit-learn's Lloyd iterations from a greedy k-means++ start,
    until they converge. Beyond, where these take days, `ITERATIONS` rounds from a random start on all cores:
    faiss's where it is installed (`pip install 'rll_tf[faiss]'`), otherwise scikit-learn's mini-batches.

    Args:
        embeddings: [n, d] finite numbers.
        clusters: 1 to n. Fewer come out where there are fewer distinct embeddings.
        seed: of the start. Equal seeds give equal clusters with the same library and number of threads.

    Returns:
        [n] cluster ids.
    """
    if embeddings.dtype.kind != "f":
        embeddings = embeddings.astype(np.float32)
    with waiting(f"k-means, {clusters:,} clusters"), warnings.catch_warnings():
        # Collapsed embeddings have fewer distinct points than classes; the scores say so clearly enough.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if len(embeddings) * clusters > MANY:
            return _cluster_many(embeddings - embeddings.mean(axis=0), clusters, seed)
        # The order in which several threads finish would change the means' last bits.
        with threadpool_limits(1, user_api="openmp"):
            return KMeans(clusters, n_init=1, random_state=seed).fit_predict(embeddings)


def _cluster_many(embeddings: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    if importlib.util.find_spec("faiss") is None:
        model = MiniBatchKMeans(
            clusters,
            init="random",
            n_init=1,
            max_iter=ITERATIONS,
            batch_size=min(len(embeddings), 4 * clusters),
            max_no_improvement=None,  # where to stop would depend on a sum's last bits
            random_state=seed,
        )
        return model.fit_predict(embeddings)
    import faiss

    rows = np.ascontiguousarray(embeddings, np.float32)
    # All points count, however few or many a cluster has.
    points = {"min_points_per_centroid": 1, "max_points_per_centroid": len(rows)}
    model = faiss.Kmeans(rows.shape[1], clusters, niter=ITERATIONS, seed=seed, **points)
    model.train(rows)
    return model.index.search(rows, 1)[1][:, 0]


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
