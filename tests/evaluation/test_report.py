"""The page: complete, self-contained, safe, and never half-written."""

import collections
import html.parser
import importlib.resources
import os
import re

import numpy as np
import pytest

from rll_tf.evaluation import retrieval_metrics, write_report
from rll_tf.evaluation.report import (
    COLOURS,
    MAP_PICTURES,
    _histogram,
    _share_closer,
    embedding_map,
)

VOID = {"meta", "img", "link", "br", "input"}


class Page(html.parser.HTMLParser):
    """Collects every tag, address and text, and checks that tags close in order."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.addresses, self.open, self.text = [], [], [], ""
        self.feed(path.read_text("utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        """Note the tag and whatever it refers to."""
        self.tags.append(tag)
        self.addresses += [
            value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """A tag that closes itself, as SVG has."""
        self.tags.append(tag)

    def handle_endtag(self, tag):
        """It closes what was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Text outside tags."""
        self.text += data


def write(folder, n=60, noise=1.5, **options):
    """A report on noisy classes; picture i is of size (i + 1) x 20."""
    rng = np.random.default_rng(2)
    labels = np.arange(n) % 6
    embeddings = rng.normal(size=(6, 4))[labels] + noise * rng.normal(size=(n, 4))
    options.setdefault("metrics", {"concat": retrieval_metrics(embeddings, labels)})
    options.setdefault("image", lambda i: rng.integers(0, 255, (i + 1, 20, 3), dtype=np.uint8))
    return write_report(
        folder, **{"embeddings": embeddings, "labels": labels, "data": "noise", "split": "test"} | options
    )


def test_the_page_holds_everything_and_needs_nothing(tmp_path):
    """Numbers, split, counts, lists and histogram, in one file without scripts or outside addresses."""
    metrics = {"low": {"recall@1": 0.123, "nmi": 0.5}, "concat": {"recall@1": 0.456}}
    curves = {"loss": {"high": [(step, 1 / step) for step in range(1, 2000)]}, "nothing": {"high": []}}
    path = write(tmp_path / "new" / "report", metrics=metrics, facts={"run": "runs/demo"}, curves=curves)
    assert os.listdir(path.parent) == ["index.html"]
    page = Page(path)
    for text in ("noise", "test", "60", "6", "runs/demo", "12.3", "45.6", "50.0", "R@1", "NMI", "hardest"):
        assert text in page.text
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", path.read_text())
    assert page.tags.count("path") == 2 + 1  # two histograms, one curve
    assert page.tags.count("circle") == 60
    assert "nothing" not in page.text
    assert "prefers-color-scheme: dark" in path.read_text()


def test_equal_input_gives_an_equal_page(tmp_path):
    """Nothing on it depends on the clock or on an unseeded draw."""

    def image(i):
        return np.full((9, 9), i, np.uint8)

    first, second = (write(tmp_path / name, image=image, seed=4).read_bytes() for name in "ab")
    assert first == second


def test_only_pictures_that_are_shown_are_read(tmp_path):
    """Each at most once, however many lists it is in."""
    read = []

    def image(i):
        read.append(i)
        return np.zeros((5, 5), np.uint8)

    write(tmp_path, image=image, lists=2, neighbours=3)
    assert len(read) == len(set(read)) <= 2 * (4 + 4 + 2)


def test_names_are_text_not_markup(tmp_path):
    """A class named like a tag, in another script, or with undecodable bytes is shown, not interpreted."""
    names = ["<script>alert(1)</script>", "日本語", "\udce9t\udce9", '"quoted"', "a & b", "f"]
    page = Page(write(tmp_path, class_names=names, lists=6, title="<b>"))
    assert "script" not in page.tags
    assert "日本語" in page.text
    assert "<b>" in page.text


def test_a_perfect_and_a_tiny_set(tmp_path):
    """No hardest queries, no pairs of one class, all distances 0: the page says so and is still whole."""
    assert "None: every query" in Page(write(tmp_path / "perfect", noise=0.01)).text
    singles = {"embeddings": np.eye(2), "labels": ["a", "b"], "metrics": {"x": {"map@r": 0.0}}}
    assert "alone in its class" in Page(write(tmp_path / "singles", **singles)).text
    collapsed = {"embeddings": np.ones((4, 2)), "labels": [1, 1, 2, 2], "metrics": {"x": {}}}
    assert "50.0 %" in Page(write(tmp_path / "collapsed", **collapsed)).text


@pytest.mark.parametrize(
    ("positions", "labels", "text"),
    [
        ([0, 1, 9, 10], "aabb", "Of 4 queries, 0 have a picture of another class as their nearest other. "
         "Shown: 2 whose nearest is right, at most one per class, drawn by seed 0."),
        ([0, 5, 6, 11], "aabb", "Of 4 queries, 2 have a picture of another class as their nearest other. "
         "Shown: 1 whose nearest is right and 1 whose nearest is wrong,"),
        ([0, 5, 6, 20], "abab", "Of 4 queries, 4 have a picture of another class as their nearest other. "
         "Shown: 2 whose nearest is wrong, at most one per class, drawn by seed 0."),
        ([0, 1, 9, 12], "aabc", "2 have a picture of another class as their nearest other, 2 of them being "
         "alone in their class. Shown: 1 whose nearest is right,"),
    ],
)  # fmt: skip
def test_the_text_counts_what_is_there(positions, labels, text, tmp_path):
    """Whether all, some or none fail, and where classes have one picture."""
    embeddings = np.array(positions, float)[:, None]
    page = Page(write(tmp_path, embeddings=embeddings, labels=list(labels), lists=2, metrics={"x": {}}))
    assert text in " ".join(page.text.split())


def test_a_map_of_many_pictures_is_a_sample(tmp_path):
    """Whole classes of a large set, no class more than its share; the page stays light."""
    labels = np.append(np.arange(3000) % 300, np.full(2000, 300))
    embeddings = np.random.default_rng(0).normal(size=(5000, 4))
    drawn = embedding_map(embeddings, labels, str, seed=0)
    assert 590 <= len(drawn["points"]) <= MAP_PICTURES
    by_class = collections.Counter(name for *_, name in drawn["points"])
    assert set(by_class.values()) <= {10, MAP_PICTURES // COLOURS}
    assert len({kind for _, _, kind, _ in drawn["points"]}) == COLOURS + 1
    assert all(0 <= value <= drawn["px"] for x, y, *_ in drawn["points"] for value in (x, y))
    assert embedding_map(embeddings[:3], labels[:3], str, seed=0) is None


def test_what_is_taken_for_what_is_counted(tmp_path):
    """Two of three queries of a have a picture of c nearest and one of b, both of c one of a, none of b."""
    embeddings = np.array([0, 10, 50, 1, 1.5, 10.5, 52], float)[:, None]
    text = Page(write(tmp_path, embeddings=embeddings, labels=list("aaabbcc"), metrics={"x": {}})).text
    assert re.findall(r"(\d of \d) queries", text) == ["2 of 3", "2 of 2", "1 of 3"]


def test_a_failed_report_leaves_the_old_one(tmp_path):
    """A picture that cannot be read stops the new page, not the old one."""
    path = write(tmp_path)
    before = path.read_bytes()

    def broken(i):
        raise OSError(f"picture {i} is truncated")

    with pytest.raises(OSError, match="is truncated"):
        write(tmp_path, image=broken)
    assert path.read_bytes() == before


def test_the_share_of_closer_pairs_agrees_with_a_loop():
    """Ties count half."""
    same, other = np.array([0.0, 1.0, 2.0, 2.0]), np.array([1.0, 2.0, 3.0])
    expected = np.mean([(s < o) + 0.5 * (s == o) for s in same for o in other])
    assert _share_closer(same, other) == pytest.approx(expected)
    assert _share_closer(same, np.empty(0)) is None


def test_the_histogram_stays_inside_its_frame():
    """Every point of both curves is within the picture, and the curves end where they began."""
    rng = np.random.default_rng(0)
    drawing = _histogram(rng.random(500), 3 * rng.random(700))
    for _, path in drawing["paths"]:
        assert path.startswith(f"M0,{drawing['floor']}")
        assert path.endswith(f"V{drawing['floor']}Z")
        assert all(0 <= float(y) <= drawing["floor"] for y in re.findall(r"V([\d.]+)", path))
        assert max(float(x) for x in re.findall(r"H([\d.]+)", path)) == drawing["width"]


def test_the_template_is_in_the_package():
    """It is found where an installed package has it."""
    assert importlib.resources.files("rll_tf.evaluation").joinpath("report.html.j2").is_file()
