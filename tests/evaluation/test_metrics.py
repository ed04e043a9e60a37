"""Retrieval metrics against a double loop that follows the definitions, and corner cases."""

import functools
import itertools
import math
import statistics
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rll_tf.evaluation import clustering, concatenate_levels, retrieval_metrics
from rll_tf.evaluation.clustering import cluster, clustering_scores

KS = (1, 2, 4, 8)


def orders(distances):
    """Every order of the others that the distances allow: all permutations within each tie."""
    ties = [[j for _, j in tie] for _, tie in itertools.groupby(sorted(distances), key=lambda pair: pair[0])]
    for parts in itertools.product(*(itertools.permutations(tie) for tie in ties)):
        yield list(itertools.chain(*parts))


def slow_metrics(embeddings, labels, ks):
    """The definitions, word for word, averaged over every order of tied neighbours."""
    recalls, average_precisions, precisions = {k: [] for k in ks}, [], []
    for i, query in enumerate(embeddings.tolist()):
        distances = [(math.dist(query, row), j) for j, row in enumerate(embeddings.tolist()) if j != i]
        r = sum(label == labels[i] for label in labels) - 1
        per_order = []
        for order in orders(distances):
            relevant = [labels[j] == labels[i] for j in order]
            found = [float(any(relevant[:k])) for k in ks]
            at = [sum(relevant[: p + 1]) / (p + 1) for p in range(r) if relevant[p]]
            per_order.append([*found, sum(at) / max(r, 1), sum(relevant[:r]) / max(r, 1)])
        *found, average_precision, precision = [
            statistics.fmean(column) for column in zip(*per_order, strict=True)
        ]
        for k, value in zip(ks, found, strict=True):
            recalls[k].append(value)
        if r > 0:
            average_precisions.append(average_precision)
            precisions.append(precision)
    return {
        **{f"recall@{k}": statistics.fmean(values) for k, values in recalls.items()},
        "map@r": statistics.fmean(average_precisions) if precisions else 0.0,
        "r_precision": statistics.fmean(precisions) if precisions else 0.0,
    }


def slow_clustering_scores(labels, clusters):
    """Mutual information from counts, F1 from a loop over all pairs."""
    n = len(labels)

    def entropy(ids):
        return -sum(ids.count(a) / n * math.log(ids.count(a) / n) for a in set(ids))

    mutual = 0.0
    for a, b in set(zip(labels, clusters, strict=True)):
        both = sum(pair == (a, b) for pair in zip(labels, clusters, strict=True))
        mutual += both / n * math.log(both * n / (labels.count(a) * clusters.count(b)))
    tp = fp = fn = 0
    for i, j in itertools.combinations(range(n), 2):
        tp += labels[i] == labels[j] and clusters[i] == clusters[j]
        fp += labels[i] != labels[j] and clusters[i] == clusters[j]
        fn += labels[i] == labels[j] and clusters[i] != clusters[j]
    return {
        "nmi": 2 * mutual / (entropy(labels) + entropy(clusters)),
        "pairwise_f1": 2 * tp / (2 * tp + fp + fn),
    }


def pictures(seed, n, classes, d=5):
    """Embeddings with loose clusters, and labels of unequal classes, in no order."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.3, n), classes) * 7
    centres = rng.normal(size=(8 * classes, d))
    return (centres[labels] + 0.8 * rng.normal(size=(n, d))).astype(np.float32), labels


@given(
    n=st.integers(1, 40), classes=st.integers(1, 6), block_size=st.integers(1, 45), seed=st.integers(0, 999)
)
@settings(max_examples=50)
def test_ranking_agrees_with_a_double_loop(n, classes, block_size, seed):
    """Recall@K, MAP@R and R-precision, singletons and K above n included."""
    embeddings, labels = pictures(seed, n, classes)
    got = retrieval_metrics(embeddings, labels, KS, clustering=False, block_size=block_size)
    assert got == pytest.approx(slow_metrics(embeddings, labels.tolist(), KS), abs=1e-12)


@given(n=st.integers(2, 7), side=st.integers(1, 4), block_size=st.integers(1, 8), seed=st.integers(0, 999))
@settings(max_examples=60)
def test_ties_score_their_expected_value(n, side, block_size, seed):
    """On a small lattice, full of ties, the result is the mean over every allowed order."""
    rng = np.random.default_rng(seed)
    embeddings, labels = rng.integers(0, side, (n, 2)), rng.integers(0, 3, n)
    got = retrieval_metrics(embeddings, labels, (1, 2, 3), clustering=False, block_size=block_size)
    assert got == pytest.approx(slow_metrics(embeddings, labels.tolist(), (1, 2, 3)), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_clustering_scores_agree_with_loops_over_pairs(seed):
    """NMI with the arithmetic mean, and pairwise F1, on unequal and scrambled groups."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 60)
    clusters = np.where(rng.random(60) < 0.6, (labels * 3 + 1) % 5, rng.integers(0, 4, 60))
    expected = slow_clustering_scores(labels.tolist(), clusters.tolist())
    assert clustering_scores(labels, clusters) == pytest.approx(expected, abs=1e-12)


def test_the_metrics_are_those_of_the_clustering():
    """`nmi` and `pairwise_f1` come from one k-means with as many clusters as classes."""
    embeddings, labels = pictures(1, 80, 5)
    clusters = cluster(embeddings, len(set(labels.tolist())), seed=3)
    got = retrieval_metrics(embeddings, labels, seed=3)
    expected = slow_clustering_scores(labels.tolist(), clusters.tolist())
    assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("library", ["faiss", "sklearn"])
def test_many_clusters_start_at_random(library, monkeypatch):
    """Separate classes are mostly found, and equal seeds give equal clusters, with either library."""
    if library == "faiss":
        pytest.importorskip("faiss")
    else:
        monkeypatch.setattr(clustering.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(clustering, "MANY", 0)
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 40
    embeddings = 50 + 4 * rng.normal(size=(40, 8))[labels] + 0.3 * rng.normal(size=(600, 8))
    clusters = cluster(embeddings, 40, seed=2)
    assert clusters.shape == (600,)
    assert clustering_scores(labels, clusters)["nmi"] > 0.85
    np.testing.assert_array_equal(cluster(embeddings, 40, seed=2), clusters)
    assert (cluster(embeddings, 40, seed=3) != clusters).any()


def test_a_k_of_hundreds_needs_no_list_as_long():
    """Recall@K beyond the lists that MAP@R needs equals a count over sorted distances."""
    embeddings, labels = pictures(9, 900, 8, d=2)
    labels = labels * 200 + np.arange(900) % 100  # R is small
    embeddings = (10 * embeddings).round()  # and ties are many
    ks = (1, 10, 100, 500)
    got = retrieval_metrics(embeddings, labels, ks, clustering=False, block_size=64)
    expected = np.zeros(len(ks))
    for i, query in enumerate(embeddings.astype(np.float64)):
        squares = ((embeddings - query) ** 2).sum(axis=1)
        squares[i] = np.inf
        of_class = squares[labels == labels[i]].min()
        if np.isinf(of_class):
            continue
        nearer, tied = (squares < of_class).sum(), squares == of_class
        right = (tied & (labels == labels[i])).sum()
        for at, k in enumerate(ks):
            taken = min(max(k - nearer, 0), tied.sum())
            expected[at] += 1 - math.comb(tied.sum() - right, taken) / math.comb(tied.sum(), taken)
    assert [got[f"recall@{k}"] for k in ks] == pytest.approx(list(expected / 900), abs=1e-12)


def test_keys_types_and_bounds():
    """The dict that others read: these keys in this order, Python floats from 0 to 1."""
    got = retrieval_metrics(*pictures(2, 70, 6))
    assert list(got) == [*(f"recall@{k}" for k in KS), "map@r", "r_precision", "nmi", "pairwise_f1"]
    assert all(type(value) is float and 0 <= value <= 1 for value in got.values())
    assert got == retrieval_metrics(*pictures(2, 70, 6))


def test_normalising_compares_directions():
    """Whatever the norms are, those of a gallery too; a row of zeros stays."""
    embeddings, labels = pictures(2, 40, 6)
    embeddings = embeddings.astype(np.float64)
    embeddings[3] = 0
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    units = embeddings / np.where(norms > 0, norms, 1)
    scaled = np.geomspace(0.01, 100, 40)[:, None] * embeddings
    score = functools.partial(retrieval_metrics, clustering=False)
    expected = score(units, labels)
    assert score(scaled, labels, normalize=True) == pytest.approx(expected)
    assert score(scaled, labels)["recall@1"] != expected["recall@1"]
    split = functools.partial(score, labels=labels[:20], gallery_labels=labels[20:])
    expected = split(units[:20], gallery=units[20:])
    found = split(scaled[:20], gallery=scaled[20:], normalize=True)
    assert found == pytest.approx(expected)
    assert score((embeddings * 9).astype(int), labels, normalize=True)["recall@1"] > 0


def test_well_separated_classes_score_one():
    """Classes as points far apart, with some noise: everything is exactly 1."""
    labels = np.repeat(np.arange(6), [2, 3, 5, 7, 11, 13])
    embeddings = 100 * np.eye(6)[labels] + np.random.default_rng(0).normal(size=(41, 6))
    assert set(retrieval_metrics(embeddings, labels).values()) == {1.0}


@given(seed=st.integers(0, 999), block_size=st.integers(1, 60))
@settings(max_examples=25)
def test_order_of_pictures_blocks_and_scale_do_not_matter(seed, block_size):
    """Shuffled pictures, other blocks, or embeddings times a power of two score the same, ties included."""
    rng = np.random.default_rng(seed)
    embeddings, labels = pictures(seed, 50, 5)
    embeddings = np.round(embeddings)
    expected = retrieval_metrics(embeddings, labels, clustering=False)
    order = rng.permutation(50)
    shuffled = retrieval_metrics(embeddings[order], labels[order], clustering=False, block_size=block_size)
    assert shuffled == pytest.approx(expected, abs=1e-12)
    scaled = retrieval_metrics(
        embeddings * np.float32(2.0) ** int(rng.integers(-20, 20)), labels, clustering=False
    )
    assert scaled == expected


@given(seed=st.integers(0, 999), n=st.integers(2, 40), decimals=st.integers(0, 2))
@settings(max_examples=25)
def test_recall_grows_with_k(seed, n, decimals):
    """Recall@K is "any hit", so it never falls with K, and MAP@R is never above R-precision."""
    embeddings, labels = pictures(seed, n, 4)
    got = retrieval_metrics(np.round(embeddings, decimals), labels, range(1, n + 3), clustering=False)
    recalls = [got[f"recall@{k}"] for k in range(1, n + 3)]
    assert recalls == sorted(recalls)
    assert got["map@r"] <= got["r_precision"] + 1e-12


def test_recall_is_any_hit_not_precision():
    """One right neighbour among four wrong ones is a full hit at 5."""
    embeddings = np.array([[0.0], [1.0], [1.1], [1.2], [1.3], [1.4]])
    got = retrieval_metrics(embeddings, [0, 1, 2, 3, 4, 0], (1, 4, 5), clustering=False)
    assert (got["recall@1"], got["recall@4"], got["recall@5"]) == (0.0, 0.0, 2 / 6)


def test_a_duplicate_is_a_neighbour():
    """The query is excluded by index: its copy of another class is a miss, its copy of its own a hit."""
    embeddings = np.array([[0.0], [0.0], [5.0], [5.0], [4.0]])
    got = retrieval_metrics(embeddings, ["a", "a", "b", "c", "b"], (1,), clustering=False)
    assert got["recall@1"] == (1 + 1 + 0 + 0 + 0.5) / 5  # the last has two neighbours at one distance


def test_k_above_the_gallery_means_all_others():
    """Recall beyond n - 1 is the share of queries that have a picture of their class at all."""
    embeddings, labels = np.arange(5.0)[:, None], [0, 0, 1, 1, 2]
    got = retrieval_metrics(embeddings, labels, (4, 5, 1000), clustering=False)
    assert got["recall@4"] == got["recall@5"] == got["recall@1000"] == 4 / 5


def test_a_class_with_one_picture_misses_and_has_no_r_precision():
    """It counts as a query in recall@K, and not in the means over queries with R > 0."""
    embeddings = np.array([[0.0], [1.0], [50.0]])
    got = retrieval_metrics(embeddings, [3, 3, 8])
    assert got["recall@1"] == got["recall@8"] == 2 / 3
    assert got["map@r"] == got["r_precision"] == 1.0


def test_only_classes_with_one_picture():
    """Nothing can be found: all retrieval metrics are 0; clusters of one each agree with the classes."""
    got = retrieval_metrics(np.arange(4.0)[:, None] ** 2, list("abcd"), (1, 2))
    assert got == {
        "recall@1": 0.0, "recall@2": 0.0, "map@r": 0.0, "r_precision": 0.0, "nmi": 1.0, "pairwise_f1": 1.0,
    }  # fmt: skip


def test_one_picture():
    """It has no neighbour and so finds nothing."""
    got = retrieval_metrics(np.ones((1, 3)), [5])
    assert {got[f"recall@{k}"] for k in KS} | {got["map@r"], got["r_precision"]} == {0.0}


def test_a_single_class():
    """Every neighbour is right."""
    assert set(retrieval_metrics(pictures(4, 30, 3)[0], np.zeros(30, int)).values()) == {1.0}


@pytest.mark.parametrize("shuffle", [False, True])
def test_collapse_scores_what_guessing_does(shuffle):
    """All embeddings equal: sorted labels gain nothing from their neighbours in the list."""
    labels = np.repeat(np.arange(20), 10)
    if shuffle:
        labels = np.random.default_rng(0).permutation(labels)
    got = retrieval_metrics(np.full((200, 16), 0.25, np.float32), labels)
    guess = 9 / 199
    assert got["recall@1"] == pytest.approx(guess)
    assert got["recall@2"] == pytest.approx(1 - (190 / 199) * (189 / 198))
    assert got["r_precision"] == pytest.approx(guess)
    assert got["nmi"] == 0.0


def test_labels_are_compared_as_integers():
    """Ids above 2^24, and above 2^53, stay apart; strings and ids give the same numbers."""
    embeddings = np.array([[0.0], [0.1], [5.0], [5.1]])
    for base in (2**24, 2**53):
        labels = np.array([base, base + 1, base + 2, base + 3])
        assert retrieval_metrics(embeddings, labels, clustering=False)["recall@8"] == 0.0
    names = retrieval_metrics(embeddings, ["a", "b", "a", "b"])
    assert names == retrieval_metrics(embeddings, np.array([-4, 9, -4, 9], np.int8))


def test_memory_stays_far_below_a_square_matrix():
    """4,000 pictures of 50 classes, blocks of 256: the peak is below half of a float32 [n, n]."""
    n = 4000
    embeddings = np.random.default_rng(5).normal(size=(n, 8))
    tracemalloc.start()
    try:
        retrieval_metrics(embeddings, np.arange(n) % 50, clustering=False, block_size=256)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < n * n * 4 / 2


@pytest.mark.parametrize(
    ("embeddings", "labels", "recall_at", "message"),
    [
        (np.ones((3, 2)), [1, 2], (1,), r"every embedding needs one label: got 3 embeddings, 2 labels"),
        (np.ones(3), [1, 2, 3], (1,), r"must be \[n, d\].*: got shape \(3,\)"),
        (np.ones((0, 3)), [], (1,), r"n and d at least 1: got shape \(0, 3\)"),
        ([[1.0], [math.nan], [math.inf]], [1, 1, 1], (1,), r"finite: row 1 holds nan, the first of 2 rows"),
        ([["a"]], [1], (1,), r"embeddings must be real numbers: got dtype <U1"),
        (np.ones((2, 2)), [1.0, 2.0], (1,), r"labels must be integers or strings: got dtype float64"),
        (np.ones((2, 2)), [None, 2], (1,), r"labels must be integers or strings: got dtype object"),
        (np.ones((2, 2)), [[1], [2]], (1,), r"labels must be \[n\].*: got shape \(2, 1\)"),
        (np.ones((2, 2)), [1, 2], (), r"recall_at must hold at least one K.*: got \(\)"),
        (np.ones((2, 2)), [1, 2], (1, 0), r"integers of at least 1: got \(1, 0\)"),
        (np.ones((2, 2)), [1, 2], (1.5,), r"integers of at least 1: got \(1\.5,\)"),
    ],
)
def test_bad_arguments_are_named(embeddings, labels, recall_at, message):
    """An error says what must hold and what was received."""
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(embeddings, labels, recall_at)


def test_levels_are_concatenated_to_unit_norm():
    """Side by side in the order given, each row of norm 1, a row of zeros left alone."""
    low, high = np.array([[3.0, 0.0], [0.0, 0.0]]), np.array([[4.0], [0.0]])
    whole = concatenate_levels({"low": low, "high": high})
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, [[0.6, 0.0, 0.8], [0.0, 0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({}, r"at least one level: got none"),
        ({"low": np.ones((2, 3)), "high": np.ones((3, 3))}, r"as many rows: got low 2, high 3"),
        ({"low": np.ones(3)}, r"level 'low' must be \[n, d\]"),
    ],
)
def test_bad_levels_are_named(levels, message):
    """An error says what must hold and what was received."""
    with pytest.raises(ValueError, match=message):
        concatenate_levels(levels)
