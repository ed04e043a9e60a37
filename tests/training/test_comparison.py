"""The comparison's engine, with a trainer that computes instead of training."""

import dataclasses
import json
import math
import os
import re
import threading

import numpy as np
import pytest

from rll_tf.losses import LOSSES
from rll_tf.training import Settings
from rll_tf.training.comparison import (
    Comparison,
    Outcome,
    compare,
    engine,
    format_results,
    parse_rows,
    summarise,
)
from rll_tf.training.comparison.ranges import RANGES, ranges_of, settings_of
from rll_tf.training.comparison.results import interval, protocol_in_words, standing
from rll_tf.training.comparison.search import propose

BASE = Settings(learning_rate=0.4, classes_per_batch=20, images_per_class=3, steps=300, embedding_dim=64)
ROWS = parse_rows("ranked_list,triplet_hard,proxy_anchor", "high")
COMPARISON = Comparison(ROWS, BASE, classes=50, trials=3, seeds=2)


class Killed(BaseException):
    """The process was killed here."""


class Moments:
    """Counts moments and is killed at one of them."""

    def __init__(self, kill_at=None):
        self.count, self.kill_at = 0, kill_at

    def __call__(self):
        """One moment."""
        if self.count == self.kill_at:
            raise Killed
        self.count += 1


class Fake:
    """Trains at once: the nearer a rate is to the loss's best, the better; each seed differs a little."""

    classes = frozenset({"a", "b"})

    def __init__(self, moments=lambda: None, runs=COMPARISON.runs):
        self.moments, self.runs, self.begun = moments, runs, 0

    def skill(self, settings):
        """How well these settings do."""
        distance = abs(math.log10(settings.learning_rate / (0.05 * len(settings.loss) / 10)))
        return 0.8 / (1 + distance) + 0.01 * math.sin(settings.seed)

    def train(self, settings, folder):
        """Leave the settings behind."""
        self.moments()
        self.begun += 1
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(
            json.dumps([settings.loss, settings.learning_rate, settings.seed])
        )
        self.moments()
        skill = self.skill(settings)
        return Outcome(skill, 100, ((50, skill / 2), (100, skill)), 0.1, 100.0, 1.0)

    def stop(self):
        """Nothing is under way."""

    def trained_classes(self, folder):
        """Two."""
        return set(self.classes)

    def test_classes(self):
        """Two others."""
        return {"y", "z"}

    def test(self, folder):
        """A little worse than on validation classes."""
        finished = len(list(folder.parents[1].glob("*/*/outcome.json")))
        assert finished == self.runs, "test classes were read before the end of training"
        loss, rate, seed = json.loads((folder / "settings.json").read_text())
        return metrics(0.9 * self.skill(Settings(loss=loss, learning_rate=rate, seed=seed)))

    def untrained(self, settings):
        """Bad."""
        return metrics(0.1)


def metrics(value):
    """All the same."""
    return {level: {"recall@1": value, "map@r": value, "nmi": value} for level in ("high", "concat")}


def run(folder, moments=None, rows=ROWS, trainer=None, **arguments):
    """The rows of results.json."""
    comparison = Comparison(rows, BASE, classes=50, trials=3, seeds=2)
    trainer = trainer or Fake(moments or (lambda: None), comparison.runs)
    return summarise(compare(comparison, folder, trainer, report=lambda line: None, **arguments))


@pytest.fixture
def killable(monkeypatch):
    """Every file that the engine writes is two moments more: before and after."""
    write = engine.write_json
    moments = Moments()

    def write_json(file, value):
        moments()
        write(file, value)
        moments()

    monkeypatch.setattr(engine, "write_json", write_json)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # half of this test's time
    return moments


def test_killed_at_any_moment_it_ends_as_if_undisturbed(killable, tmp_path):
    """At each of them in turn, and no finished run is trained again."""
    rows = ROWS[:2]
    undisturbed = run(tmp_path / "whole", killable, rows)
    moments = killable.count
    assert moments > 60
    for moment in range(moments):
        folder = tmp_path / str(moment)
        killable.count, killable.kill_at = 0, moment
        first, second = Fake(killable, 10), Fake(runs=10)
        with pytest.raises(Killed):
            run(folder, rows=rows, trainer=first)
        killable.kill_at = None
        assert run(folder, rows=rows, trainer=second) == undisturbed
        assert first.begun + second.begun <= 10 + 1


def test_killed_ten_times_it_ends_as_if_undisturbed(killable, tmp_path):
    """Also with two runs side by side."""
    undisturbed = run(tmp_path / "whole", killable)
    rng = np.random.default_rng(0)
    for kill in range(10):
        killable.count, killable.kill_at = 0, int(rng.integers(1, 12))
        with pytest.raises(Killed):
            run(tmp_path / "killed", killable, jobs=1 + kill % 2)
    killable.kill_at = None
    assert run(tmp_path / "killed", jobs=2) == undisturbed


def test_a_running_trial_keeps_its_parameters(tmp_path, monkeypatch):
    """They are on disk before training begins, so another version's proposals don't change them."""
    with pytest.raises(Killed):
        run(tmp_path, Moments(kill_at=2))  # in the second trial's training
    file = tmp_path / "runs" / "ranked_list-high" / "trial-02.json"
    proposed = json.loads(file.read_text())
    monkeypatch.setattr(engine, "propose", lambda ranges, finished: {each.key: each.first for each in ranges})
    trials = run(tmp_path)[0]["search"]
    assert trials[1]["parameters"] == proposed != trials[2]["parameters"]


def test_the_best_trial_is_trained_with_every_seed_and_tested(tmp_path):
    """The row has its parameters, one value per seed, and the interval."""
    for row in run(tmp_path):
        best = max(row["search"], key=lambda trial: trial["validation"])
        assert row["parameters"] == best["parameters"]
        recall = row["levels"]["concat"]["recall@1"]
        assert len(set(recall["values"])) == 2
        assert recall == interval(recall["values"])
        assert row["trials"] == len(row["search"]) == 3


def test_every_loss_has_the_same_number_of_trials_and_begins_with_its_default():
    """Each row of the table of ranges has the learning rate first and all numbers within its bounds."""
    assert set(RANGES) == set(LOSSES)
    for loss in LOSSES:
        ranges = ranges_of(loss, BASE)
        assert ranges[0].key == "learning_rate"
        first = propose(ranges, [])
        settings_of(loss, ("high",), BASE, 50, first)
        finished = [(first, 0.5)]
        for number in range(12):
            values = propose(ranges, finished)
            assert values == propose(ranges, finished)
            for each in ranges:
                assert values[each.key] in each.choices or each.low <= values[each.key] <= each.high
            finished.append((values, 0.1 * (number % 3)))
            settings_of(loss, ("high",), BASE, 50, values)


def test_the_second_to_fourth_trial_try_each_third_of_every_range_once():
    """So few trials try small, middle and large rates."""
    for loss in LOSSES:
        ranges, finished = ranges_of(loss, BASE), []
        for _ in range(4):
            finished.append((propose(ranges, finished), 0.5))
        for each in ranges:
            if each.choices:
                continue
            warp = math.log if each.scale == "log" else float
            low, high = warp(each.low), warp(each.high)
            shares = sorted((warp(values[each.key]) - low) / (high - low) for values, _ in finished[1:])
            assert shares == pytest.approx([1 / 6, 1 / 2, 5 / 6], abs=0.01)


def test_the_search_finds_a_better_rate_than_the_default(tmp_path):
    """With enough trials it comes near the best."""
    comparison = Comparison(ROWS[:1], BASE, classes=50, trials=16, seeds=1)
    row = summarise(compare(comparison, tmp_path, Fake(runs=17), report=lambda line: None))[0]
    values = [trial["validation"] for trial in row["search"]]
    assert max(values) > 0.7 > values[0]


def test_losses_that_need_another_batch_see_as_many_pictures():
    """N-pair has two pictures per class, Spectral Clust more pictures than numbers in an embedding."""
    for loss in LOSSES:
        made = settings_of(loss, ("high",), BASE, 50, {})
        pictures = made.classes_per_batch * made.images_per_class
        assert made.steps * pictures == pytest.approx(300 * 60, rel=0.01)
        assert made.classes_per_batch <= 50
    n_pair = settings_of("n_pair", ("high",), BASE, 50, {})
    assert (n_pair.classes_per_batch, n_pair.images_per_class) == (30, 2)
    few = settings_of("n_pair", ("high",), BASE, 24, {})
    assert (few.classes_per_batch, few.steps) == (24, 375)
    spectral = settings_of("spectral_clust", ("high",), BASE, 50, {})
    assert spectral.classes_per_batch * spectral.images_per_class >= 2 * spectral.embedding_dim == 128
    wide = settings_of("spectral_clust", ("high",), BASE.override(["embedding_dim=512"]), 50, {})
    assert wide.classes_per_batch * wide.images_per_class >= 2 * wide.embedding_dim == 250


def test_a_loss_that_does_nothing_and_one_that_cheats_are_told_apart(tmp_path):
    """One isn't better than the untrained network; the other saw test classes, and is not the winner."""
    rows = parse_rows("ranked_list,n_pair,lifted_struct", "high")

    class Unequal(Fake):
        def skill(self, settings):
            of_loss = {"ranked_list": 0.5, "n_pair": 0.105, "lifted_struct": 0.99}[settings.loss]
            return of_loss + 0.005 * math.sin(settings.seed)

        def trained_classes(self, folder):
            return set(self.classes) | ({"z"} if "lifted" in str(folder) else set())

    results = run(tmp_path, rows=rows, trainer=Unequal())
    assert [row["saw_test_classes"] for row in results] == [[], [], ["z"]]
    assert standing(results, "map@r") == ["first", "", ""]
    text = format_results({"rows": results, "test": "glyphs", "seeds": 2})
    assert "* n_pair: not shown to be better than the untrained network." in text
    assert "* lifted_struct: trained on 1 of the test classes: excluded." in text
    assert re.search(r"\| ranked_list \| \*\*4\d\.\d ± \d\.\d\*\*", text)


def test_the_protocol_is_told_as_it_was(tmp_path):
    """Pictures seen, proposals, checkpoints; untrained networks by size."""
    results = {
        "rows": run(tmp_path), "trials": 3, "seeds": 1, "test": "glyphs",
        "protocol": {"settings": dataclasses.asdict(BASE)},
    }  # fmt: skip
    told = " ".join(protocol_in_words(results))
    assert "see the same number of pictures: 300 steps of 20 × 3" in told
    assert "best checkpoint by validation" in told
    assert "Parzen" not in told
    results["trials"] = 5
    assert "Parzen" in " ".join(protocol_in_words(results))
    for row in results["rows"]:
        row["validation"] = None
    results["rows"][0] |= {"batch": [10, 3], "embedding_dim": 32}
    told = " ".join(protocol_in_words(results))
    assert "see 9,000 to 18,000 pictures" in told
    assert "No classes are held out to validate on: the last checkpoint counts." in told
    assert "best checkpoint" not in told
    table = format_results(results)
    assert "In percent, of one seed." in table
    assert "*untrained, high, 64 dimensions*" in table


def test_means_within_the_winners_interval_are_marked():
    """0.80 ± 0.05: 0.76 is within, 0.74 is not."""
    rows = [
        {"saw_test_classes": [], "levels": {"concat": {"nmi": {"mean": mean, "ci95": 0.05}}}}
        for mean in (0.74, 0.76, 0.80)
    ]
    assert standing(rows, "nmi") == ["", "within", "first"]


def test_the_interval_is_students():
    """Of 1, 2, 3: 4.303 standard errors of 0.577, from a table of t."""
    assert interval([1.0, 2.0, 3.0])["ci95"] == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert interval([1.0])["ci95"] is None


def test_a_failed_run_stops_those_beside_it(tmp_path):
    """At once, not at the end of the other rows' searches."""
    begun, stopped = threading.Event(), threading.Event()

    class Failing(Fake):
        def train(self, settings, folder):
            if settings.loss == "ranked_list":
                assert begun.wait(60)
                raise ValueError("failed")
            begun.set()
            assert stopped.wait(60)
            raise ValueError("stopped")

        def stop(self):
            stopped.set()

    with pytest.raises(ValueError, match="failed"):
        run(tmp_path, trainer=Failing(), jobs=2)


def test_folds_take_turns(tmp_path):
    """A trial is a run on each fold; each seed validates on the next."""
    seen = []

    class Folds(Fake):
        def train(self, settings, folder):
            seen.append((settings.seed, settings.validation_fold, folder.name))
            return super().train(settings, folder)

    base = BASE.override(["validation_folds=2"])
    comparison = Comparison(ROWS[:1], base, classes=50, trials=1, seeds=3)
    compare(comparison, tmp_path, Folds(runs=5), report=lambda line: None)
    assert seen == [
        (0, 1, "trial-01-fold-1"), (0, 2, "trial-01-fold-2"),
        (1, 2, "seed-1"), (2, 1, "seed-2"), (3, 2, "seed-3"),
    ]  # fmt: skip


def test_rows_by_name_and_levels():
    """Levels follow a colon; commas separate both."""
    rows = parse_rows("ranked_list:low,mid,high,proxy_nca,n_pair:low", "high")
    assert [(row.loss, row.levels) for row in rows] == [
        ("ranked_list", ("low", "mid", "high")), ("proxy_nca", ("high",)), ("n_pair", ("low",)),
    ]  # fmt: skip
    default = parse_rows(None, "high")
    assert {row.loss for row in default} == set(LOSSES)
    assert len({row.folder for row in default}) == len(default) == len(LOSSES) + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ranked_lsit", "unknown loss 'ranked_lsit'; did you mean ranked_list"),
        ("n_pair,n_pair:high", "every loss must be named once; got n_pair:high twice"),
        ("n_pair:top", "levels must be some of low, mid, high, each once; got top"),
    ],
)
def test_wrong_rows(text, message):
    """One line says what must hold and what was given."""
    with pytest.raises(ValueError, match=message):
        parse_rows(text, "high")
