"""Dirty data, folds and the cache, as a user meets them."""

import json
import os
import shutil

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


def test_skip_corrupt_trains_evaluates_and_resumes(tmp_path, capfd):
    """Counted and listed at the end; evaluation of the run's own folder skips the same."""
    folder, run = write_pictures(tmp_path / "pictures"), tmp_path / "run"
    for name in ("class 1/2.png", "class 4/0.png"):
        (folder / name).write_bytes(b"no picture")
    train = words("train", "convnet", "--data", f"folder:{folder}", "--out", run, *TINY_SETTINGS)
    assert cli.run(train) == 1
    assert "is not a whole picture" in capfd.readouterr().err
    train[train.index("--out") + 1] = str(tmp_path / "skipping")
    rll(*train, "--skip-corrupt")
    output = capfd.readouterr().out
    assert "training on" in output
    assert "skipped 2 pictures:\n  " in output
    assert f"{folder}/class 4/0.png is not a whole picture" in output
    before = steps_of(tmp_path / "skipping")
    rll("train", "convnet", "--out", tmp_path / "skipping", "--resume")
    assert steps_of(tmp_path / "skipping") == before
    capfd.readouterr()
    rll("evaluate", tmp_path / "skipping", "--json", tmp_path / "metrics.json")
    assert "skipped 2 pictures" in capfd.readouterr().out
    assert json.loads((tmp_path / "metrics.json").read_text())["split"] == "validation"


def test_embed_skips_what_it_is_told_to(exported, tmp_path, capfd):
    """The file holds the others."""
    folder = write_pictures(tmp_path / "pictures", 3, 2)
    (folder / "class 1" / "0.png").write_bytes(b"")
    data = ("--data", f"folder:{folder}", "--to", tmp_path / "x.npz")
    rll("embed", exported, *data, "--skip-corrupt")
    output = capfd.readouterr().out
    assert "skipped 1 pictures" in output
    assert "embedded 5 pictures" in output


def test_copies_are_reported(tmp_path, capfd):
    """Before training, with the case of two labels."""
    folder = write_pictures(tmp_path / "pictures")
    (folder / "class 1" / "0.png").write_bytes((folder / "class 0" / "0.png").read_bytes())
    rll("train", "convnet", "--data", f"folder:{folder}", "--out", tmp_path / "run", *TINY_SETTINGS)
    output = capfd.readouterr().out
    assert "1 picture files are copies of another, such as" in output
    assert "1 of them lie in several classes" in output


def test_a_fold_is_trained_without_its_classes_and_judged_on_them(pictures, tmp_path, capfd):
    """The third of three folds of six classes; evaluation judges on the fold's own."""
    data, run = ("--data", f"folder:{pictures}"), tmp_path / "run"
    rll("train", "convnet", *data, "--out", run, *TINY_SETTINGS, "--set", "steps=1", "--fold", "3/3")
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


def test_the_cache_changes_nothing_but_speed(pictures, run_folder, tmp_path):
    """Every step's loss is that of the run without it."""
    cache = tmp_path / "cache"
    data = ("--data", f"folder:{pictures}", "--out", tmp_path / "run")
    rll("train", "convnet", *data, "--cache", cache, *TINY_SETTINGS)
    assert steps_of(tmp_path / "run") == steps_of(run_folder)
    assert len(list(cache.rglob("*.u8"))) == 30


def test_a_cache_that_can_not_be_written_leaves_no_run(pictures, tmp_path, capfd):
    """A file, and a place where nothing can be made; told before any picture is read."""
    (tmp_path / "file").touch()
    train = words("train", "convnet", "--data", f"folder:{pictures}", "--out", tmp_path / "run")
    for cache in (tmp_path / "file", "/proc/cache"):
        assert cli.run([*train, *TINY_SETTINGS, "--cache", str(cache)]) == 1
        output, errors = capfd.readouterr()
        assert f"a cache must be a folder that can be written into; got {cache} (" in errors
        assert errors.count("\n") == 1
        assert output == ""
    assert not (tmp_path / "run").exists()


def test_classes_whose_names_are_not_utf8_are_trained_on(tmp_path, capfd):
    """Their names are printed and written escaped."""
    folder = write_pictures(tmp_path / "pictures")
    os.rename(os.fsencode(folder) + b"/class 0", os.fsencode(folder) + b"/caf\xe9")
    run = tmp_path / "run"
    rll("train", "convnet", "--data", f"folder:{folder}", "--out", run, *TINY_SETTINGS)
    classes = json.loads((run / "config.json").read_text())["classes"]
    assert r"caf\xe9" in classes["train"] + classes["validation"]


def test_a_folder_whose_path_is_not_utf8_is_trained_and_judged_on(pictures, tmp_path):
    """In a process of its own: the path stands escaped in JSON, and --resume and evaluate find it again."""
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    shutil.copytree(pictures, folder)
    run, metrics = tmp_path / "run", tmp_path / "metrics.json"
    process = rll_process("train", "convnet", "--data", f"folder:{folder}", "--out", run, *TINY_SETTINGS)
    assert process.returncode == 0, process.stderr
    assert json.loads((run / "config.json").read_text())["data"] == f"folder:{folder}"
    rll("train", "convnet", "--out", run, "--resume")
    process = rll_process("evaluate", run, "--json", metrics, "--report", tmp_path / "report")
    assert process.returncode == 0, process.stderr
    assert r"caf\xe9, split validation" in process.stdout
    assert json.loads(metrics.read_text())["data"] == f"folder:{folder}"
    rll("export", run, "--to", tmp_path / "exported")


def test_inshop_is_judged_query_against_gallery(run_folder, tmp_path, monkeypatch):
    """By default; a split that is named is judged within itself."""
    counts = {"train": Counts(2, 4), "query": Counts(3, 4), "gallery": Counts(3, 3)}
    monkeypatch.setattr(inshop.inshop, "__defaults__", (counts,))
    data = ("--data", f"inshop:{write_inshop(tmp_path)}", "--json", tmp_path / "metrics.json")
    for split, name, queries in [((), "query against gallery", 4), (("--split", "test"), "test", 7)]:
        rll("evaluate", run_folder, *data, *split)
        result = json.loads((tmp_path / "metrics.json").read_text())
        assert (result["split"], result["queries"], result["classes"]) == (name, queries, 3)
