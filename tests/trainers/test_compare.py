"""`rll compare` and `rll reproduce` on a small folder; the trainings run in this process."""

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rll_tf.data import open_dataset
from rll_tf.training import Run
from tests.conftest import ROOT, write_pictures
from trainers import cli
from trainers.compare import _same_names
from trainers.compare_trainer import RllTrain, outcome_of
from trainers.paper_tables import CARS, CUB, SOP, TABLES

SMALL = [
    "--set",
    "input_px=16",
    "--set",
    "embedding_dim=8",
    "--set",
    "validate_every_steps=3",
    "--steps",
    "6",
]
SHARED = os.environ.get("RLL_SHARED")
TIMES = ("seconds_a_step", "peak_memory_mib", "command")


@pytest.fixture
def trainings(monkeypatch):
    """Trainings in this process; the list of those begun."""
    begun = []

    def process(self, words, log):
        begun.append(words)
        log.parent.mkdir(parents=True, exist_ok=True)
        error = io.StringIO()
        with contextlib.redirect_stderr(error), log.open("w") as stream, contextlib.redirect_stdout(stream):
            status = cli.run(words)
        return status, error.getvalue().strip()

    monkeypatch.setattr(RllTrain, "_process", process)
    return begun


@pytest.fixture
def folder(tmp_path):
    """A folder of ten classes of four small pictures."""
    return write_pictures(tmp_path / "pictures", classes=10, per_class=4)


def compare(folder, out, *arguments):
    """The exit status."""
    words = ["compare", "--data", f"folder:{folder}", "--out", str(out), "--recipe", "convnet", *SMALL]
    words += ["--set", "validation_share=0.4", "--trials", "1", "--seeds", "1", *arguments]
    return cli.run([str(word) for word in words])


def test_a_comparison_from_start_to_end(folder, trainings, tmp_path, capsys):
    """Test pictures are opened after all training; then nothing is trained twice; all is written."""
    catalogue = open_dataset(f"folder:{folder}").set_apart(0.5)
    hidden = {path: Path(path).with_name(f".{Path(path).name}") for path in catalogue.select("test").paths}
    for path, moved in hidden.items():
        os.rename(path, moved)
        os.symlink("nowhere", path)  # reading raises, or with --skip-corrupt is reported
    damaged = catalogue.without_test().paths[0]
    Path(damaged).write_bytes(b"damaged")
    out = tmp_path / "out"
    assert compare(folder, out, "--losses", "ranked_list") == 1
    printed, message = capsys.readouterr()
    assert f"1 damaged picture left out of training, such as {damaged}" in printed
    assert next(iter(hidden)) in message
    assert message.count("\n") == 1
    assert len(list(out.glob("runs/*/*/outcome.json"))) == len(trainings) == 2
    for log in out.glob("runs/*/*/log.txt"):
        assert damaged in log.read_text()
        assert not any(path in log.read_text() for path in hidden)

    for path, moved in hidden.items():
        os.replace(moved, path)
    Path(path).write_bytes(b"damaged")  # one of twenty
    assert compare(folder, out, "--losses", "ranked_list") == 0
    assert len(trainings) == 2
    results = json.loads((out / "results.json").read_text())
    (row,) = results["rows"]
    assert results["data"] == f"folder:{folder}"
    assert "19 pictures of 5 classes (1 damaged picture left out)" in results["test"]
    assert (row["loss"], row["trials"], set(row["levels"])) == ("ranked_list", 1, {"high", "concat"})
    assert row["levels"]["high"]["recall@1"].keys() == {"mean", "ci95", "values"}
    assert row["seconds_a_step"] > 0 < row["peak_memory_mib"]
    assert row["saw_test_classes"] == []
    assert "| ranked_list | **" in (out / "results.md").read_text()
    page = (out / "index.html").read_text()
    assert "<img" in page
    assert "http" not in page.replace("http://www.w3.org", "")

    # The same, had the run been trained on the test classes too.
    config_file = out / "runs" / "ranked_list-high" / "seed-1" / "run" / "config.json"
    config = json.loads(config_file.read_text())
    tested = catalogue.select("test")
    config["classes"]["train"] += [tested.class_names[label] for label in set(tested.labels)]
    config_file.write_text(json.dumps(config))
    assert compare(folder, out, "--losses", "ranked_list", "--no-pictures") == 0
    assert "<img" not in (out / "index.html").read_text()
    assert "trained on 5 of the test classes: excluded" in (out / "index.html").read_text()
    capsys.readouterr()
    assert compare(folder, out, "--losses", "ranked_list", "--seeds", "2") == 1
    assert "holds another comparison: its seeds is 1; got 2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_saw_test_classes_is_found_out(folder, trainings, tmp_path):
    """A run of all classes, put in the place of one of the training classes."""
    run = tmp_path / "out" / "runs" / "n_pair-high" / "seed-1" / "run"
    words = [
        "train",
        "convnet",
        "--data",
        f"folder:{folder}",
        "--out",
        run,
        *SMALL[:-2],
        "--set",
        "steps=6",
    ]
    words += ["--set", "levels=high", "--set", "test_share=0"]
    assert cli.run([str(word) for word in words]) == 0
    assert compare(folder, tmp_path / "out", "--losses", "n_pair") == 0
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert len(row["saw_test_classes"]) == 5
    assert "test classes: excluded" in (tmp_path / "out" / "results.md").read_text()


def test_the_rows_of_a_table_on_other_pictures(folder, run_folder, monkeypatch, tmp_path, capsys):
    """Table 3: three values of α; the paper's numbers beside ours, under a title that says what differs.

    A finished run stands in for each training.
    """
    alphas = []

    def train(self, settings, job):
        alphas.append(settings.alpha)
        shutil.copytree(run_folder, job / "run")
        return outcome_of(Run(job / "run"), 1.0, False)

    monkeypatch.setattr(RllTrain, "train", train)
    out = tmp_path / "out"
    words = ["reproduce", "table3", "--data", f"folder:{folder}", "--recipe", "convnet", *SMALL]
    assert cli.run([*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "missing: nothing" in printed
    assert re.search(r"3 runs of 6 steps of 3 × 3: about 0\.\d hours", printed)
    assert cli.run([*words, "--set", "margin=0.8", "--out", str(out)]) == 1
    assert "--set can't give margin: the table's rows do" in capsys.readouterr().err
    assert cli.run([*words, "--out", str(out), "--no-pictures"]) == 0
    results = json.loads((out / "results.json").read_text())
    assert [row["parameters"]["alpha"] for row in results["rows"]] == [1.4, 1.2, 1.0]
    assert [row["parameters"]["margin"] for row in results["rows"]] == [0.4] * 3
    assert results["rows"][0]["paper"] == {"SOP": {"R@1": 76.2, "R@10": 89.4, "R@100": 95.6}}
    differences = results["paper_table"]["differences"]
    assert differences[0] == "data"
    assert {"backbone", "weights", "input_px", "steps"} <= set(differences)
    assert not {"alpha", "seed"} & set(differences)
    assert alphas == [1.4, 1.2, 1.0]
    page = (out / "index.html").read_text()
    assert "<h1>The rows of the paper&#39;s Table 3" in page
    assert "This is not the paper&#39;s experiment: other data, " in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--losses", "ranked_lsit"], "unknown loss 'ranked_lsit'; did you mean ranked_list"),
        (["--set", "loss=n_pair"], "--set can't give loss: --losses and --seeds say what is compared"),
        (["--recipe", "convent"], "did you mean convnet"),
        (["--test", "SAME"], "--test must hold other pictures than --data; got 40 in both"),
        (["--set", "steps=none"], "setting steps must be a whole number; got 'none'"),
    ],
)
def test_mistakes_are_one_line(arguments, message, folder, tmp_path, capsys):
    """What must hold, and what was given."""
    given = [word.replace("SAME", f"folder:{folder}") for word in arguments]
    assert compare(folder, tmp_path / "out", *given) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_optuna(monkeypatch, folder, tmp_path, capsys):
    """The error has the command that installs it."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name))
    assert compare(folder, tmp_path / "out") == 1
    assert "pip install 'rll_tf[compare]'" in capsys.readouterr().err


@pytest.mark.parametrize("classes", [4, 6])
def test_too_few_classes(classes, tmp_path, capsys):
    """The message names how many are needed."""
    few = write_pictures(tmp_path / "few", classes=classes)
    words = ["compare", "--data", f"folder:{few}", "--out", str(tmp_path / "out"), *SMALL]
    assert cli.run([*words, "--recipe", "convnet"]) == 1
    assert "needs at least 4 classes to train and validate on" in capsys.readouterr().err


def test_a_table_with_splits_needs_test_pictures(folder, tmp_path, capsys):
    """A csv whose split column has no test: nobody is tested on what was trained on."""
    lines = [
        f"{file},{file.parent.name},{'validation' if file.parent.name.endswith('1') else 'train'}"
        for file in sorted(folder.glob("*/*"))
    ]
    table = tmp_path / "pictures.csv"
    table.write_text("\n".join(["path,label,split", *lines]))
    words = [
        "compare",
        "--data",
        f"csv:{table}",
        "--out",
        str(tmp_path / "out"),
        "--recipe",
        "convnet",
        *SMALL,
    ]
    assert cli.run(words) == 1
    assert "and no test: give --test" in capsys.readouterr().err


def test_test_classes_with_the_names_of_training_classes_are_noted(folder, tmp_path):
    """They may be the same, of which `--test` can't be one."""
    other = write_pictures(tmp_path / "other", classes=12)
    names = _same_names(open_dataset(f"folder:{folder}"), open_dataset(f"folder:{other}"))
    assert names.startswith("10 classes of")
    assert "class 0" in names
    assert not _same_names(open_dataset(f"folder:{folder}"), None)


def test_a_missing_benchmark_is_named(monkeypatch, tmp_path, capsys):
    """And a table that there isn't."""
    monkeypatch.setenv("RLL_DATASETS", str(tmp_path))
    assert cli.run(["reproduce", "table6"]) == 1
    assert "sop needs the file Ebay_train.txt" in capsys.readouterr().err
    assert cli.run(["reproduce", "tabel6"]) == 1
    assert "did you mean table6" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED, reason="RLL_SHARED is unset: the paper's text is elsewhere")
def test_the_printed_numbers_are_the_papers():
    """Every row of every table, digit by digit, in its order."""
    with open(f"{SHARED}/paper/ranked-list-loss.txt", encoding="utf-8") as file:
        text = file.read()
    for name, table in TABLES.items():
        lines = re.split(rf"^Table {name[-1]}:", text, flags=re.MULTILINE)[1].splitlines()[1:]
        lines = lines[: next(i for i, line in enumerate(lines) if i > 2 and "\t" not in line)]
        found = [re.findall(r"(?<![\w.])\d\d\.\d(?!\d)", line.partition("\t")[2]) for line in lines]
        found = [[float(number) for number in numbers] for numbers in found if numbers]
        ours = [
            [value for data in (CARS, CUB, SOP) for value in row.printed.get(data, {}).values()]
            for row in table.rows
        ]
        assert ours == found, name


def test_a_rows_name_says_its_settings():
    """Tables 3 to 5 and 7 a number each, Table 6 levels."""
    keys = {"α": "alpha", "m": "margin", "T": "temperature", "×": "classes_per_batch"}
    for row in (row for name in ("table3", "table4", "table5", "table7") for row in TABLES[name].rows):
        ((key, value),) = row.settings.items()
        words = row.name.split()
        assert keys[next(word for word in words if word in keys)] == key
        assert str(value) == words[0 if "×" in words else -1] or float(words[-1]) == value
    levels = {"L": "low", "M": "mid", "H": "high"}
    for row in TABLES["table6"].rows:
        assert row.levels == tuple(levels[letter] for letter in re.findall(r"\w", row.name))


def test_the_papers_settings_and_the_2019_releases():
    """Table 1's rows of Ranked List Loss by either; Table 7's batches keep their ratios."""
    from rll_tf.training import Settings
    from trainers.reproduce import Plan, _rows

    def fixed(table, settings, data, base, classes=100):
        rows = _rows(Plan(table, settings, data, "cub200", Path("out")), base, classes)
        return {row.name: row.fixed for row in rows}

    base = Settings(embedding_dim=64)
    paper = fixed("table1", "paper", "cub200", base)["RLL-(L,M,H)"]
    release = fixed("table1", "2019", "cub200", base)["RLL-(L,M,H)"]
    cars = fixed("table1", "2019", "cars196", base)["RLL-H"]
    assert paper == {"alpha": 1.2, "margin": 0.4, "temperature": 10.0, "variant": "paper"}
    assert release == {"alpha": 1.4, "margin": 0.2, "temperature": 10.0, "variant": "release2019"}
    assert cars == {**paper, "variant": "release2019"}
    batches = [row["classes_per_batch"] for row in fixed("table7", "paper", "sop", base).values()]
    assert batches == [40, 50, 55, 60, 65]
    small = Settings(classes_per_batch=24)
    few = [row["classes_per_batch"] for row in fixed("table7", "paper", "glyphs", small, 24).values()]
    assert few == [15, 18, 20, 22, 24]


@pytest.mark.slow
def test_killed_ten_times_it_ends_with_the_same_results(tmp_path):
    """Kill -9 at random moments: three losses, two trials, two seeds on glyphs, in real processes."""
    command = [sys.executable, "-m", "trainers.cli", "compare", "--data", "glyphs", "--trials", "2"]
    command += ["--seeds", "2", "--losses", "ranked_list,triplet_semihard,proxy_anchor", *SMALL, "--out"]

    def results(out):
        subprocess.run([*command, out], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        found = json.loads((out / "results.json").read_text())
        for row in found["rows"]:
            for name in TIMES[:2]:
                row.pop(name)
        return {name: value for name, value in found.items() if name not in TIMES}

    seed = int(time.time())
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    finished: dict[Path, int] = {}
    for kill in range(10):
        process = subprocess.Popen([*command, tmp_path / "killed"], cwd=ROOT, stdout=subprocess.DEVNULL)
        time.sleep(float(rng.uniform(8, 40)))
        process.kill()
        process.wait()
        assert all(file.stat().st_mtime_ns == written for file, written in finished.items())  # not repeated
        finished = {file: file.stat().st_mtime_ns for file in tmp_path.glob("killed/runs/*/*/outcome.json")}
        print(f"killed {kill + 1} times, {len(finished)} runs done")
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    assert all(file.stat().st_mtime_ns == written for file, written in finished.items())
