"""Queries against a gallery of other pictures, as in In-shop."""

import numpy as np
import pytest

from rll_tf.evaluation import retrieval_metrics


def oracle(queries, labels, gallery, gallery_labels, ks):
    """Recall@K, MAP@R and R-precision by sorting, one query at a time; no two distances are equal here."""
    recalls, average, precision = {k: [] for k in ks}, [], []
    for query, label in zip(queries, labels, strict=True):
        order = sorted(range(len(gallery)), key=lambda g: np.linalg.norm(query - gallery[g]))
        hits = [gallery_labels[g] == label for g in order]
        for k in ks:
            recalls[k].append(any(hits[:k]))
        r = sum(hits)
        if r:
            precision.append(sum(hits[:r]) / r)
            average.append(sum(sum(hits[: i + 1]) / (i + 1) for i in range(r) if hits[i]) / r)
    result = {f"recall@{k}": np.mean(values) for k, values in recalls.items()}
    return {**result, "map@r": np.mean(average), "r_precision": np.mean(precision)}


def test_a_gallery_equals_the_oracle():
    """Unequal classes, one of the queries' classes absent from the gallery, K beyond the gallery."""
    rng = np.random.default_rng(3)
    labels = np.array([3, 3, 5, 9, 9, 9, 40])
    gallery_labels = np.array([9, 3, 3, 3, 5, 9, 7, 7, 5, 5, 3])
    queries, gallery = rng.normal(size=[7, 4]), rng.normal(size=[11, 4])
    for block_size in (None, 2):
        found = retrieval_metrics(
            queries, labels, (1, 2, 50), clustering=False, block_size=block_size,
            gallery=gallery, gallery_labels=gallery_labels,
        )  # fmt: skip
        wanted = oracle(queries, labels, gallery, gallery_labels, (1, 2, 50))
        assert found == pytest.approx(wanted)


def test_a_query_finds_its_copy_in_the_gallery():
    """Nothing is left out by its index: a picture in both is a neighbour at distance 0."""
    vectors = np.eye(4)
    result = retrieval_metrics(vectors, [0, 1, 2, 3], gallery=vectors, gallery_labels=[0, 1, 2, 3])
    assert set(result.values()) == {1.0}


def test_labels_of_the_gallery_are_checked():
    """One a row."""
    with pytest.raises(ValueError, match="got 3 embeddings, 2 labels"):
        retrieval_metrics(np.eye(3), [0, 1, 2], gallery=np.eye(3), gallery_labels=[0, 1])
