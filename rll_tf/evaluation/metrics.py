"""How well embeddings retrieve: Recall@K, MAP@R, R-precision, and clustering quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from rll_tf.evaluation.checks import check_embeddings, check_labels
from rll_tf.evaluation.clustering import cluster, clustering_scores
from rll_tf.evaluation.neighbours import RankedBlock, Search, where

# The name of all levels' embeddings side by side.
CONCAT = "concat"


def retrieval_metrics(
    embeddings: ArrayLike,
    labels: ArrayLike | Sequence[str],
    recall_at: Sequence[int] = (1, 2, 4, 8),
    *,
    clustering: bool = True,
    block_size: int | None = None,
    seed: int = 0,
    gallery: ArrayLike | None = None,
    gallery_labels: ArrayLike | Sequence[str] | None = None,
    normalize: bool = False,
) -> dict[str, float]:
    """Every picture a query against all the others; the query is left out by its index.

    Where a gallery is given, as In-shop has one, every picture is a query against it alone: "others" below
    then are the gallery's pictures.

    With rel(i) = 1 where the i-th nearest other is of the query's class, R the number of other pictures of
    that class, and P(i) the share of relevant ones among the first i:

        recall@K    = mean over all queries of [ rel(1) + … + rel(K) > 0 ]
        map@r       = mean over queries with R > 0 of 1/R Σ_{i ≤ R} P(i) rel(i)
        r_precision = mean over queries with R > 0 of 1/R Σ_{i ≤ R} rel(i)
        nmi, pairwise_f1: of k-means with as many clusters as classes, see `clustering.clustering_scores`

    In detail:

    - Equally distant others have no order of their own, so a query scores its expected value over all orders
      of them. A collapsed model, all embeddings equal, thereby scores the same as chance, however the
      pictures are sorted. `neighbours` says which distances count as equal, and how float32 products give
      float64's order.
    - A picture alone in its class is a query that always misses: it lowers recall@K. It has no R-precision
      and no MAP@R and is left out of their means, which are 0 where every picture is alone.
    - With a gallery, queries and gallery are clustered together.
    - A K above n - 1 is that of all others: recall@K is then the share of queries with R > 0. So one picture
      alone has recall 0.
    - With one class every neighbour is right, and all values are 1.

    Args:
        embeddings: [n, d] real numbers, compared by Euclidean distance, as they are unless `normalize`.
        labels: [n] integers or strings.
        recall_at: the Ks.
        clustering: False leaves out `nmi` and `pairwise_f1`; k-means takes long with thousands of classes.
        block_size: queries at a time, see `neighbours`. It does not change the result.
        seed: of k-means, which alone is random.
        gallery: [g, d], what is searched, or None for the pictures themselves.
        gallery_labels: [g], of the gallery.
        normalize: divide each embedding by its Euclidean norm first (a row of zeros stays), as
            `rll_tf.RankedListLoss` does with the same argument, whose default is True. A network without a
            normalising layer should be compared as it was trained.

    Returns:
        The metrics by name, Python floats from 0 to 1.

    Raises:
        ValueError: embeddings are not [n, d] finite real numbers with n ≥ 1; labels are not n integers or
            strings; `recall_at` is empty or holds something below 1.

    Source: Recall@K as in the paper, section 4.1; MAP@R and R-precision as in "A Metric Learning Reality
    Check" (2020), section 3.2; expectation over ties as in McSherry and Najork, "Computing Information
    Retrieval Performance Measures Efficiently in the Presence of Tied Scores" (2008).
    """
    if normalize:
        embeddings, gallery = unit(embeddings), None if gallery is None else unit(gallery)
    search = Search(embeddings, gallery)
    if gallery is None:
        everything = search.queries
        names, codes = check_labels(labels, len(everything))
        all_codes = gallery_codes = codes
    else:
        both = [np.asarray(labels), np.asarray(gallery_labels)]
        check_labels(both[0], len(search.queries))
        check_labels(both[1], len(search.gallery))
        everything = np.concatenate([search.queries, search.gallery])
        names, all_codes = check_labels(np.concatenate(both), len(everything))
        codes, gallery_codes = np.split(all_codes, [len(search.queries)])
    ks = list(recall_at)
    if not ks or not all(isinstance(k, (int, np.integer)) and k >= 1 for k in ks):
        raise ValueError(f"recall_at must hold at least one K, integers of at least 1: got {recall_at!r}")

    of_class = np.bincount(gallery_codes, minlength=len(names))
    relevant = of_class[codes] - search.within  # R, for every query
    hits = np.zeros(len(ks))
    scores = np.zeros(2)
    # Lists of one length share a block, so that one large class does not make all lists long.
    order = np.argsort(relevant, kind="stable")
    for queries, squares in search.blocks(order[relevant[order] > 0], block_size):
        block = search.rank(queries, squares, relevant[queries])
        scores += _TiedLists(block, codes, gallery_codes).scores_at(relevant[queries])
        first = _first_right(search, queries, squares, codes, gallery_codes, max(ks))
        hits += [_hit_chance(k, *first).sum() for k in ks]

    result = {f"recall@{k}": float(hit / len(codes)) for k, hit in zip(ks, hits, strict=True)}
    average_precision, precision = scores / max(1, np.count_nonzero(relevant))
    result |= {"map@r": float(average_precision), "r_precision": float(precision)}
    if clustering:
        result |= clustering_scores(all_codes, cluster(everything, len(names), seed))
    return result


def _first_right(
    search: Search,
    queries: np.ndarray,
    squares: tf.Tensor,
    codes: np.ndarray,
    gallery_codes: np.ndarray,
    most: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each query of a block finds its class first; every one must have another picture of its class.

    Counting needs no list as long as the K of Recall@K.

    Returns:
        Three [b]: how many others are nearer than the nearest of the query's class; how many are as near,
        this one included; how many of these are of its class. The last two may be 0 where the first is at
        least `most`.
    """
    is_right = codes[queries][:, None] == tf.constant(gallery_codes)
    nearest = tf.reduce_min(tf.where(is_right, squares, np.float32(np.inf)), axis=1).numpy()
    margin = 2 * search.rounding(queries, nearest)
    low, high = ((nearest + sign * margin)[:, None].astype(np.float32) for sign in (-1, 1))
    nearer = tf.reduce_sum(tf.cast(squares < low, tf.int32), axis=1).numpy().astype(np.int64)
    high[nearer >= most] = -np.inf  # what follows no longer counts
    row, column = where((squares >= low) & (squares <= high))
    square = search.exact(queries[row], column)
    right = codes[queries[row]] == gallery_codes[column]
    best = np.full(len(queries), np.inf)
    np.minimum.at(best, row[right], square[right])
    far = square - best[row]
    ties = np.abs(far) <= search.tie * best[row]

    def count(pairs: np.ndarray) -> np.ndarray:
        return np.bincount(row[pairs], minlength=len(queries))

    return nearer + count((far < 0) & ~ties), count(ties), count(ties & right)


def _hit_chance(k: int, nearer: np.ndarray, tied: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Chance of each query that its first k hold one of its class; arguments as of `_first_right`, [b].

    Of `tied` entries as many are taken as there is room for, and all miss with chance
    (n - r)/n · (n - r - 1)/(n - 1) · …, r of n being right.
    """
    taken = np.clip(k - nearer, 0, tied)
    miss = np.ones(len(taken))
    for drawn in range(taken.max(initial=0)):
        wrong = np.maximum(tied - right - drawn, 0) / np.maximum(tied - drawn, 1)
        miss *= np.where(drawn < taken, wrong, 1.0)
    return 1.0 - miss


class _TiedLists:
    """A block's ranked lists as sequences of ties, most of one entry, their relevant entries counted."""

    def __init__(self, block: RankedBlock, codes: np.ndarray, gallery_codes: np.ndarray) -> None:
        begins = block.rank == block.tie_start
        self.block = block
        self.tie = np.cumsum(begins) - 1  # [m] which tie an entry belongs to
        self.row = block.row[begins]  # and for each of t ties: its list,
        self.size = np.bincount(self.tie)  # its entries,
        relevant = gallery_codes[block.column] == codes[block.queries[block.row]]
        self.relevant = np.bincount(self.tie, weights=relevant)  # how many are relevant,
        ahead = np.cumsum(self.relevant) - self.relevant
        first_tie = np.searchsorted(self.row, np.arange(len(block.queries)))
        self.ahead = ahead - ahead[first_tie][self.row]  # and how many before it in its list.

    def scores_at(self, cutoff: np.ndarray) -> np.ndarray:
        """Sums over the block of MAP@R and of R-precision, R given as [b]; queries with R = 0 add nothing.

        The j-th of n tied entries (from 0), r of them relevant, is relevant with chance r/n; if it is, of the
        j before it in the tie j (r - 1)/(n - 1) are expected to be.
        """
        block, tie = self.block, self.tie
        chance = np.where(block.rank < cutoff[block.row], (self.relevant / self.size)[tie], 0.0)
        others = ((self.relevant - 1) / np.maximum(self.size - 1, 1))[tie]
        found = self.ahead[tie] + (block.rank - block.tie_start) * others + 1
        # Divided by R last, so that whole numbers are added and a perfect list scores exactly 1.
        both = [np.bincount(block.row, weights=each) for each in (chance * found / (block.rank + 1), chance)]
        return (np.stack(both) / np.maximum(cutoff, 1)).sum(axis=1)


def level_metrics(
    levels: Mapping[str, ArrayLike],
    labels: ArrayLike | Sequence[str],
    recall_at: Sequence[int] = (1, 2, 4, 8),
    *,
    clustering: bool = True,
    gallery: Mapping[str, ArrayLike] | None = None,
    gallery_labels: ArrayLike | Sequence[str] | None = None,
    normalize: bool = False,
) -> dict[str, dict[str, float]]:
    """`retrieval_metrics` of each level, and of their concatenation under `"concat"`.

    Levels are name -> [n, d_level], the gallery's the same names -> [g, d_level]; `normalize` is applied to
    each. The other arguments are those of `retrieval_metrics`.
    """

    def with_concatenation(levels: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        levels = {name: unit(level) if normalize else level for name, level in levels.items()}
        return {**levels, CONCAT: concatenate_levels(levels)}

    searched = {} if gallery is None else with_concatenation(gallery)
    return {
        name: retrieval_metrics(
            level,
            labels,
            recall_at,
            clustering=clustering,
            gallery=searched.get(name),
            gallery_labels=gallery_labels,
        )
        for name, level in with_concatenation(levels).items()
    }


def concatenate_levels(levels: Mapping[str, ArrayLike]) -> np.ndarray:
    """The levels' embeddings side by side, each row divided by its L2 norm (a row of zeros stays).

    Args:
        levels: name -> [n, d_level]; the model's are of unit norm, so each has the same weight.

    Returns:
        [n, Σ d_level] float32.

    Raises:
        ValueError: there are no levels, or one is not [n, d] finite numbers with the others' n.
    """
    if not levels:
        raise ValueError("there must be at least one level: got none")
    parts = [check_embeddings(part, f"level {name!r}") for name, part in levels.items()]
    if len({len(part) for part in parts}) > 1:
        counts = ", ".join(f"{name} {len(part)}" for name, part in zip(levels, parts, strict=True))
        raise ValueError(f"every level must have as many rows: got {counts}")
    return unit(np.concatenate(parts, axis=1).astype(np.float32))


def unit(embeddings: ArrayLike) -> np.ndarray:
    """Each row of [n, d] divided by its Euclidean norm, in float32 at least; a row of zeros stays."""
    rows = check_embeddings(embeddings)
    rows = rows.astype(np.result_type(rows, np.float32), copy=False)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)
