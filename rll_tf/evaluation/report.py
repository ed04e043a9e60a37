"""One page that shows how good embeddings are: numbers, curves, ranked lists, a map, distances."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from PIL import Image
from sklearn.manifold import TSNE
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from rll_tf.evaluation.charts import CHART, Scale, line_chart
from rll_tf.evaluation.pictures import as_picture, data_uri
from rll_tf.evaluation.ranked_lists import decimals_for
from rll_tf.evaluation.selection import (
    FirstNeighbours,
    RankedLists,
    ranked_lists_of_a_report,
    sample_distances,
)
from rll_tf.evaluation.tables import metric_columns, percent
from rll_tf.files import replacing

THUMB_PX = 86  # a picture's box on the page, as in the template
BINS = 60
COLOURS = 8  # of the template
MAP_PICTURES, MAP_PX = 600, 480  # at most, and its side in the units of its drawing
WIDTH, HEIGHT, FLOOR = 640, 220, 170  # of the histogram, and where its axis runs


def write_report(
    folder: str | os.PathLike[str],
    *,
    metrics: Mapping[str, Mapping[str, float]],
    embeddings: ArrayLike,
    labels: ArrayLike | Sequence[str],
    image: Callable[[int], Any],
    data: str,
    split: str,
    level: str = "concat",
    class_names: Sequence[str] | None = None,
    title: str = "How well the embeddings retrieve",
    facts: Mapping[str, object] | None = None,
    protocol: str = "Every picture is a query against all the others.",
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]] | None = None,
    lists: int = 8,
    neighbours: int = 8,
    seed: int = 0,
) -> Path:
    """Write `folder/index.html`, one file that needs no other and no network, readable in light and in dark.

    Args:
        folder: made if need be; an older page in it is replaced at once when the new one is complete.
        metrics: row's name, e.g. the level -> what `retrieval_metrics` returned.
        embeddings: [n, d], those that lists and distances are shown of.
        labels: [n] integers or strings.
        image: index -> the picture, see `pictures.as_picture`; called only for the pictures shown.
        data: what the pictures are, e.g. `"glyphs"`.
        split: which split the numbers come from; it is in the heading.
        level: the name of `embeddings`.
        class_names: where given, integer labels are indices into it; otherwise a class is named by its label.
        title: the heading.
        facts: more that is worth knowing, e.g. `{"run": "runs/demo", "step": 600}`.
        protocol: how the metrics were computed, in a sentence.
        curves: chart's heading -> line's name -> points (step, value).
        lists: how many ranked lists, and at most as many hardest queries.
        neighbours: how many neighbours in each.
        seed: of what is drawn: queries and pairs.

    Returns:
        The page's path.

    Raises:
        ValueError: the input is not what `retrieval_metrics` takes, or there are fewer than 2 pictures.
    """
    names = np.asarray(labels)
    classes, codes = np.unique(names, return_inverse=True)
    shown, hardest, first = ranked_lists_of_a_report(embeddings, labels, lists, neighbours, seed)
    same, other = sample_distances(embeddings, labels, seed=seed)

    def class_name(code: int) -> str:
        return str(classes[code] if class_names is None else class_names[int(classes[code])])

    album = Album(image, lambda index: class_name(codes[index]))
    columns = metric_columns(metrics)
    page = templates().get_template("report.html.j2").render(
        title=title,
        facts={
            **(facts or {}), "data": data, "split": split, "pictures": f"{len(names):,}",
            "classes": f"{len(classes):,}",
        },
        protocol=protocol,
        columns=columns,
        rows=metrics,
        best={metric: max(row.get(metric, 0.0) for row in metrics.values()) for metric in columns},
        percent=percent,
        chart=CHART,
        curves=[line_chart(name, lines) for name, lines in (curves or {}).items() if any(lines.values())],
        level=level,
        lists=album.rows(shown),
        about_lists=_about_lists(shown, first, seed),
        hardest=album.rows(hardest),
        confusions=_confusions(first, codes, album, lists),
        map=embedding_map(embeddings, codes, class_name, seed),
        closer=_share_closer(same, other),
        histogram=_histogram(same, other),
    )  # fmt: skip
    return write_page(Path(folder), page)


def templates(*folders: Path) -> jinja2.Environment:
    """The templates of these folders and of this one, whose style and ranked lists other pages share."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )


def write_page(folder: Path, page: str) -> Path:
    """Write `folder/index.html`, in one move."""
    # Undecodable file names hold lone surrogates, which UTF-8 cannot.
    file = folder / "index.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        partial.write_text(page, encoding="utf-8", errors="replace")
    return file


class Album:
    """The pictures on a page, each read and encoded once.

    Args:
        image: index -> the picture, see `pictures.as_picture`.
        name: index -> its class's name.
    """

    def __init__(self, image: Callable[[int], Any], name: Callable[[int], str]) -> None:
        self.image, self.name = image, name
        self.encoded: dict[int, dict[str, Any]] = {}

    def rows(self, lists: RankedLists) -> list[dict[str, Any]]:
        """Each list's pictures, as the template takes them."""
        decimals = decimals_for(float(lists.distances.max(initial=0)))
        rows = []
        for query, others, distances, correct, first in zip(
            lists.queries, lists.neighbours, lists.distances, lists.correct, lists.first_correct, strict=True
        ):
            note = f"first right: {first:,}" if first else "alone in its class"
            neighbours = [
                self.picture(int(i)) | {"note": f"{distance:.{decimals}f}", "correct": bool(right)}
                for i, distance, right in zip(others, distances, correct, strict=True)
            ]
            rows.append({"query": self.picture(int(query)) | {"note": note}, "neighbours": neighbours})
        return rows

    def picture(self, index: int) -> dict[str, Any]:
        """One picture, as the template takes it."""
        if index not in self.encoded:
            picture = as_picture(self.image(index))
            tiny = max(picture.size) <= THUMB_PX // 2
            picture.thumbnail(
                (2 * THUMB_PX, 2 * THUMB_PX), Image.Resampling.LANCZOS
            )  # twice, for fine screens
            self.encoded[index] = {"uri": data_uri(picture), "name": self.name(index), "tiny": tiny}
        return self.encoded[index]


def _about_lists(shown: RankedLists, first: FirstNeighbours, seed: int) -> str:
    """How the lists were chosen, and how often queries fail."""
    good, count = int(shown.correct[:, 0].sum()), len(shown.queries)
    fails, alone, everything = int((first.gap > 0).sum()), int(np.isposinf(first.gap).sum()), len(first.gap)
    text = f"Of {everything:,} queries, {fails:,} have a picture of another class as their nearest other"
    text += f", {alone:,} of them being alone in their class. " if alone else ". "
    parts = [f"{good} whose nearest is right"] * (good > 0) + [f"{count - good} whose nearest is wrong"] * (
        good < count
    )
    text += f"Shown: {' and '.join(parts)}, at most one per class, drawn by seed {seed}."
    if (count - good) * everything > fails * count:
        text += " Failures are shown more often than they happen."
    return text


def _confusions(first: FirstNeighbours, codes: np.ndarray, album: Album, count: int) -> list[dict[str, Any]]:
    """The pairs of classes (a, b) for which most queries of a have one of b as their nearest other."""
    wrong = np.flatnonzero((first.gap > 0) & np.isfinite(first.gap))
    pairs = np.stack([codes[wrong], codes[first.nearest[wrong]]], axis=1)
    _, example, times = np.unique(pairs, axis=0, return_index=True, return_counts=True)
    return [
        {
            "query": album.picture(int(wrong[example[at]])),
            "nearest": album.picture(int(first.nearest[wrong[example[at]]])),
            "times": int(times[at]),
            "of": int(np.count_nonzero(codes == codes[wrong[example[at]]])),
        }
        for at in np.argsort(-times, kind="stable")[:count]
    ]


def embedding_map(
    embeddings: ArrayLike, codes: np.ndarray, class_name: Callable[[int], str], seed: int
) -> dict[str, Any] | None:
    """Embeddings of some classes in two dimensions by t-SNE; None for fewer than four pictures.

    Whole classes, drawn by the seed, up to `MAP_PICTURES`, of one class at most as many as there are colours.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    most = max(1, MAP_PICTURES // COLOURS)
    by_class = [
        order[codes[order] == code][:most] for code in rng.permutation(codes.max() + 1)[:MAP_PICTURES]
    ]
    sizes = np.cumsum([len(each) for each in by_class])
    by_class = by_class[: max(1, int(np.searchsorted(sizes, MAP_PICTURES, "right")))]
    chosen = np.concatenate(by_class)
    if len(chosen) < 4:
        return None
    rows = np.asarray(embeddings)[chosen].astype(np.float32)
    with threadpool_limits(1, user_api="openmp"):  # several threads add in any order
        flat = TSNE(
            perplexity=min(30, (len(chosen) - 1) / 3), init="random", random_state=seed
        ).fit_transform(rows)
    horizontal, vertical = (Scale(flat[:, at].min(), flat[:, at].max(), 8, MAP_PX - 8) for at in (0, 1))
    kinds = np.repeat(np.arange(len(by_class)), [len(each) for each in by_class])
    return {
        "px": MAP_PX,
        "pictures": f"{len(chosen):,}",
        "classes": f"{len(by_class):,}",
        "names": [class_name(codes[each[0]]) for each in by_class[:COLOURS]],
        "points": [
            (
                horizontal(x), vertical(y), f"c{kind}" if kind < COLOURS else "rest",
                class_name(codes[index]),
            )
            for (x, y), kind, index in zip(flat, kinds, chosen, strict=True)
        ][::-1],
    }  # fmt: skip


def _share_closer(same: np.ndarray, other: np.ndarray) -> float | None:
    """Chance that a pair of one class is closer than a pair of two classes, equal distances counted half."""
    if not len(same) or not len(other):
        return None
    is_same = np.repeat([True, False], [len(same), len(other)])
    return float(roc_auc_score(is_same, -np.concatenate([same, other])))


def _histogram(same: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Two step curves over common bins, each scaled to its share a bin, as SVG paths."""
    largest = float(max(same.max(initial=0), other.max(initial=0))) or 1.0
    edges = np.linspace(0, largest, BINS + 1)
    shares = [np.histogram(part, edges)[0] / max(1, len(part)) for part in (other, same)]
    highest = max(share.max() for share in shares)
    paths = []
    for kind, share in zip(("other", "same"), shares, strict=True):
        heights = FLOOR - (FLOOR - 8) * share / highest
        steps = [f"M0,{FLOOR}"]
        steps += [f"V{y:.1f}H{x:.1f}" for y, x in zip(heights, edges[1:] * (WIDTH / largest), strict=True)]
        paths.append((kind, "".join([*steps, f"V{FLOOR}Z"])))
    ticks = MaxNLocator(8).tick_values(0, largest)
    return {
        "width": WIDTH, "height": HEIGHT, "floor": FLOOR, "paths": paths,
        "same_pairs": f"{len(same):,}", "other_pairs": f"{len(other):,}",
        "ticks": [(round(t * WIDTH / largest, 1), f"{t:g}") for t in ticks if 0 < t < 0.98 * largest],
    }  # fmt: skip
