"""Exact search in a packed gallery."""

import numpy as np
import pytest
import tensorflow as tf

from rll_tf.evaluation import nearest_neighbours
from serving import search as search_module
from serving.precision import accuracy_lost, reduce_precision, restore
from serving.search import PackedGallery

DIM = 24
# The largest error of a distance between unit vectors: 2⁻¹¹ is float16's relative rounding; int8 rounds each
# of d numbers by at most 1/254 of the row's largest, here measured on these vectors.
LOSS = {"float32": 1e-6, "float16": 1e-3, "int8": 2e-2}


def unit(rng, *shape):
    """Random vectors of unit norm."""
    vectors = rng.normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def arrays(vectors):
    """A gallery with these vectors; a path that is not UTF-8 and one that is not ASCII."""
    count = len(vectors)
    paths = [f"{i}.png" for i in range(count)]
    paths[:2] = ["na\udcefve.png", "é.png"]
    names = np.array(["a", "ß", "c"])
    return {
        "embeddings": vectors,
        "labels": np.arange(count) % 3,
        "paths": np.array(paths),
        "class_names": names,
    }


@pytest.fixture(scope="module")
def vectors():
    """500 rows; some are there twice, some are nearly the same."""
    rng = np.random.default_rng(0)
    vectors = unit(rng, 500, DIM)
    vectors[100:110] = vectors[7]
    near = vectors[8] + rng.normal(scale=3e-5, size=[10, DIM])
    vectors[200:210] = near / np.linalg.norm(near, axis=1, keepdims=True)
    return vectors


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("block_rows", [64, 4096])
def test_search_agrees_with_exact_search(vectors, precision, block_rows, monkeypatch):
    """The same neighbours of what the gallery holds, ties by index; distances within the stated loss."""
    monkeypatch.setattr(search_module, "BLOCK_ROWS", block_rows)
    gallery = PackedGallery(arrays(vectors), 12, precision)
    queries = np.concatenate([unit(np.random.default_rng(1), 20, DIM), vectors[[7, 8, 300]]])
    found = tf.function(gallery, input_signature=[tf.TensorSpec([None, DIM])])(queries)
    ids, distances = nearest_neighbours(queries, 12, gallery=gallery.restored())
    np.testing.assert_allclose(found["distances"], distances, atol=1e-6)
    # Where two distances are equal to float32's rounding, either order is right.
    told_apart = np.ones(ids.shape, bool)
    close = np.diff(distances, axis=1) < 1e-6
    told_apart[:, 1:] &= ~close
    told_apart[:, :-1] &= ~close
    assert told_apart.mean() > 0.8
    np.testing.assert_array_equal(found["ids"].numpy()[told_apart], ids[told_apart])
    _, whole = nearest_neighbours(queries, 12, gallery=vectors)
    np.testing.assert_allclose(found["distances"], whole, atol=LOSS[precision])


def test_equal_rows_come_by_their_index(vectors):
    """Eleven are the same; the query is one of them, at distance 0."""
    for precision in ("float32", "float16", "int8"):
        gallery = PackedGallery(arrays(vectors), 11, precision)
        found = gallery(gallery.restored()[[7]])
        np.testing.assert_array_equal(found["ids"], [[7, *range(100, 110)]])
        np.testing.assert_array_equal(found["distances"], np.zeros([1, 11]))


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_the_gallery_is_read_and_never_copied(vectors, precision):
    """After a gather on the variable itself TensorFlow would copy it at each read."""
    gallery = PackedGallery(arrays(vectors), 5, precision)
    function = tf.function(gallery).get_concrete_function(tf.TensorSpec([None, DIM]))
    (handle,) = (
        inner.name
        for outer, inner in function.graph.captures
        if outer is gallery.vectors.handle
    )  # fmt: skip
    users = [operation.type for operation in function.graph.get_tensor_by_name(handle).consumers()]
    assert users == ["ReadVariableOp"]


def test_names_belong_to_their_rows(vectors):
    """Labels, paths and class names, as bytes; at most as many as there are rows."""
    gallery = PackedGallery(arrays(vectors[:3]), 10, "float32")
    found = gallery(vectors[[1]])
    assert found["ids"].shape == (1, 3)
    assert found["ids"].dtype == found["labels"].dtype == tf.int64
    order = found["ids"].numpy()[0]
    assert order[0] == 1
    np.testing.assert_array_equal(found["labels"][0], order)
    assert [found["paths"].numpy()[0][list(order).index(i)] for i in range(3)] == [
        b"na\xefve.png",
        "é.png".encode(),
        b"2.png",
    ]
    assert found["class_names"].numpy()[0, 0] == "ß".encode()


def test_what_can_not_be_packed_is_rejected(vectors):
    """Rows that are not of unit norm, top 0, an unknown precision."""
    wrong = vectors.copy()
    wrong[3] *= 1.1
    with pytest.raises(ValueError, match=r"must be of unit norm; that of row 3 is 1\.1"):
        PackedGallery(arrays(wrong), 5, "float32")
    with pytest.raises(ValueError, match="top must be at least 1; got 0"):
        PackedGallery(arrays(vectors), 0, "float32")
    with pytest.raises(ValueError, match="one of float32, float16, int8; got 'int4'"):
        PackedGallery(arrays(vectors), 5, "int4")


def test_the_loss_of_precision_is_counted():
    """None for float32; what a coarse gallery mixes up is what a double loop counts."""
    rng = np.random.default_rng(3)
    vectors = unit(rng, 60, 4)
    labels = rng.integers(0, 5, 60)
    same = accuracy_lost(vectors, labels, restore(*reduce_precision(vectors, "float32")), 5)
    assert (same["top_1_changed"], same["top_k_changed"]) == (0, 0)
    assert same["recall@1_before"] == same["recall@1_after"]
    coarse = np.sign(vectors) / 2
    lost = accuracy_lost(vectors, labels, coarse, 5)
    changed, kept, hits = 0, 0, []
    for query in range(60):
        lists = []
        for gallery in (vectors, coarse):
            distances = [np.float64(((vectors[query].astype(float) - row) ** 2).sum()) for row in gallery]
            order = sorted((d, i) for i, d in enumerate(distances) if i != query)
            lists.append([i for _, i in order[:5]])
        changed += lists[0][0] != lists[1][0]
        kept += len(set(lists[0]) & set(lists[1]))
        hits.append([labels[found[0]] == labels[query] for found in lists])
    assert lost["top_1_changed"] == pytest.approx(changed / 60)
    assert lost["top_k_changed"] == pytest.approx(1 - kept / 300)
    assert lost["top_1_changed"] > 0.3
    before, after = np.mean(hits, axis=0)
    assert lost["recall@1_before"] == pytest.approx(before)
    assert lost["recall@1_after"] == pytest.approx(after)
    assert accuracy_lost(vectors[:1], labels[:1], coarse[:1], 5) is None
