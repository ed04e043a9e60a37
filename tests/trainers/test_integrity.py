"""Corrupt pictures, copies, odd names, folds and the cache, as a user meets them."""

import contextlib
import io
import json
import os
import shutil

import pytest

from rll_tf.data import inshop, open_dataset
from rll_tf.data.layout import Counts
from tests.conftest import TINY_SETTINGS, rll, rll_process, write_pictures
from tests.data.trees import write_inshop
from trainers import cli


def words(*arguments):
    """As the command line gives them."""
    return [str(argument) for argument in arguments]


def steps_of(folder):
    """Every logged step."""
    return (folder / "steps.jsonl").read_text()


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    """Two corrupt files, a copy in another class, a class of a single picture, names that are not UTF-8."""
    parent = tmp_path_factory.mktemp("odd")
    folder = write_pictures(parent / "pictures")
    for name in ("class 1/2.png", "class 4/0.png"):
        (folder / name).write_bytes(b"no picture: " + name.encode())
    (folder / "class 1" / "0.png").write_bytes((folder / "class 3" / "0.png").read_bytes())
    for number in range(1, 5):
        (folder / "class 2" / f"{number}.png").unlink()
    os.rename(os.fsencode(folder) + b"/class 0", os.fsencode(folder) + b"/caf\xe9")
    odd = os.fsencode(parent) + b"/\xe9"
    os.rename(os.fsencode(folder), odd)
    return os.fsdecode(odd)


@pytest.fixture(scope="module")
def odd_run(odd_folder, tmp_path_factory):
    """A run on them with --skip-corrupt, and what it printed."""
    run = tmp_path_factory.mktemp("runs") / "odd"
    data = ("--data", f"folder:{odd_folder}")
    level = ("--set", "levels=low")
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # which lone surrogates are an error for
    with contextlib.redirect_stdout(output):
        rll("train", "convnet", *data, "--out", run, *TINY_SETTINGS, *level, "--skip-corrupt")
    output.seek(0)
    return run, output.read()


def test_training_reports_what_is_odd_and_skips_what_is_corrupt(odd_run):
    """Copies and single pictures before training, skipped files counted and listed at its end."""
    run, output = odd_run
    assert "1 picture file is a copy of another, such as" in output
    assert "1 of them lies in several classes" in output
    assert "1 of the classes has a single picture (the first is class 2): it is repeated" in output
    assert "skipped 2 pictures:\n  " in output
    assert r"\xe9/class 4/0.png is not a whole picture" in output
    classes = json.loads((run / "config.json").read_text())["classes"]
    assert r"caf\xe9" in classes["train"] + classes["validation"]


@pytest.mark.slow
def test_a_run_on_odd_pictures_is_resumed_and_evaluated(odd_run, odd_folder, tmp_path):
    """Its folder is found again, and the same pictures are skipped."""
    run, _ = odd_run
    assert json.loads((run / "config.json").read_text())["data"] == f"folder:{odd_folder}"
    before = steps_of(run)
    rll("train", "convnet", "--out", run, "--resume")
    assert steps_of(run) == before
    metrics = tmp_path / "metrics.json"
    process = rll_process("evaluate", run, "--json", metrics, "--report", tmp_path / "report")
    assert process.returncode == 0, process.stderr
    assert "skipped 2 pictures" in process.stdout
    assert r"\xe9, split validation" in process.stdout
    assert json.loads(metrics.read_text())["data"] == f"folder:{odd_folder}"


@pytest.mark.slow
def test_a_run_on_odd_pictures_is_exported(odd_run, tmp_path):
    """The metadata holds the path escaped."""
    rll("export", odd_run[0], "--to", tmp_path / "exported")


def test_embed_skips_corrupt_pictures(exported, tmp_path, capfd):
    """The file holds the others."""
    folder = write_pictures(tmp_path / "pictures", 3, 2)
    (folder / "class 1" / "0.png").write_bytes(b"")
    data = ("--data", f"folder:{folder}", "--to", tmp_path / "x.npz")
    rll("embed", exported, *data, "--skip-corrupt")
    output = capfd.readouterr().out
    assert "skipped 1 picture:" in output
    assert "embedded 5 pictures" in output


def test_a_fold_is_trained_without_its_classes_and_evaluated_on_them(pictures, tmp_path, capfd):
    """The third of three folds of six classes; evaluation is on the fold's own."""
    data, run = ("--data", f"folder:{pictures}"), tmp_path / "run"
    fewer = ("--set", "steps=1", "--set", "levels=low")
    rll("train", "convnet", *data, "--out", run, *TINY_SETTINGS, *fewer, "--fold", "3/3")
    classes = json.loads((run / "config.json").read_text())["classes"]
    folds = [open_dataset(f"folder:{pictures}").fold(number, 3, seed=0) for number in (1, 2, 3)]
    names = [[fold.class_names[label] for label in set(fold.select("validation").labels)] for fold in folds]
    assert classes["validation"] == sorted(names[2])
    assert classes["train"] == sorted(names[0] + names[1])
    rll("evaluate", run, "--json", tmp_path / "metrics.json")
    result = json.loads((tmp_path / "metrics.json").read_text())
    assert (result["split"], result["queries"]) == ("validation", 10)
    capfd.readouterr()
    for fold, message in [("4/3", "form I/K"), ("1", "form I/K"), ("1/9", "9 folds need at least 18")]:
        assert cli.run(words("train", "convnet", *data, "--out", tmp_path / "none", "--fold", fold)) == 1
        assert message in capfd.readouterr().err


def test_a_cache_and_a_half_made_folder_change_nothing(pictures, run_folder, tmp_path, capfd):
    """Every step's loss is that of the run without them; fewer classes than the recipe's are reported."""
    run, cache = tmp_path / "run", tmp_path / "cache"
    (run / "checkpoints").mkdir(parents=True)
    (run / "partial-config.json").write_text("{")
    rll("train", "convnet", "--data", f"folder:{pictures}", "--out", run, "--cache", cache, *TINY_SETTINGS)
    assert "a batch holds 4 classes instead of the recipe's 60" in capfd.readouterr().out
    assert steps_of(run) == steps_of(run_folder)
    assert len(list(cache.rglob("*.u8"))) == 30


def test_a_cache_that_can_not_be_written_leaves_no_run(pictures, tmp_path, capfd):
    """A file, and a folder where nothing can be made; reported before any picture is read."""
    (tmp_path / "file").touch()
    train = words("train", "convnet", "--data", f"folder:{pictures}", "--out", tmp_path / "run")
    for cache in (tmp_path / "file", "/proc/cache"):
        assert cli.run([*train, *TINY_SETTINGS, "--cache", str(cache)]) == 1
        output, errors = capfd.readouterr()
        assert f"a cache must be a folder that can be written into; got {cache} (" in errors
        assert errors.count("\n") == 1
        assert output == ""
    assert not (tmp_path / "run").exists()


def test_a_changed_folder_has_no_validation_split_any_more(capfd, run_folder, tmp_path):
    """Which classes were held out holds for the pictures a run began with, and for no others."""
    changed = write_pictures(tmp_path / "pictures", classes=7)
    shutil.copytree(run_folder, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "data": f"folder:{changed}"}))
    assert cli.run(words("evaluate", tmp_path / "run")) == 1
    assert "now holds 35 pictures" in capfd.readouterr().err


def test_inshop_is_evaluated_query_against_gallery(run_folder, tmp_path, monkeypatch):
    """By default; a split that is named is evaluated within itself."""
    counts = {"train": Counts(2, 4), "query": Counts(3, 4), "gallery": Counts(3, 3)}
    monkeypatch.setattr(inshop.inshop, "__defaults__", (counts,))
    data = ("--data", f"inshop:{write_inshop(tmp_path)}", "--json", tmp_path / "metrics.json")
    for split, name, queries in [((), "query against gallery", 4), (("--split", "test"), "test", 7)]:
        rll("evaluate", run_folder, *data, *split)
        result = json.loads((tmp_path / "metrics.json").read_text())
        assert (result["split"], result["queries"], result["classes"]) == (name, queries, 3)
