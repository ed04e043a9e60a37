"""The commands, as a user meets them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from rll_tf.losses import LOSSES
from tests.conftest import TINY_SETTINGS, rll, rll_process, write_pictures
from trainers import cli

METRICS = {
    "recall@1", "recall@2", "recall@4", "recall@8", "map@r", "r_precision", "nmi", "pairwise_f1"
}  # fmt: skip


def error_of(capfd, *arguments):
    """Run a command that must fail; return its one line on standard error, without traceback."""
    status = cli.run([str(argument) for argument in arguments])
    _, errors = capfd.readouterr()
    assert status != 0
    assert errors.count("\n") == 1, errors
    assert errors.startswith("rll: ")
    return errors


def test_help_and_version_need_no_tensorflow():
    """They print at once, on standard output."""
    for arguments, word in [
        (["--help"], "search"),
        (["train", "--help"], "--resume"),
        (["--version"], "0.1.0"),
    ]:
        process = rll_process(*arguments)
        assert process.returncode == 0
        assert word in process.stdout
        assert process.stderr == ""


def test_train_lists_every_loss(capfd):
    """`rll train --help` names what `--set loss=` takes."""
    assert cli.run(["train", "--help"]) == 0
    words = re.findall(r"\w+", capfd.readouterr().out)
    assert set(LOSSES) <= set(words)


def test_datasets_lists_what_there_is(capfd):
    """Every SPEC has a line."""
    assert cli.run(["datasets"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:10]] == [
        "SPEC", "glyphs", "digits", "folder:PATH", "csv:FILE", "cub200[:PATH]", "cars196[:PATH]",
        "sop[:PATH]", "inshop[:PATH]", "tfds:NAME",
    ]  # fmt: skip


def test_an_empty_spec_is_an_error(run_folder, tmp_path, capfd):
    """It is not taken for the recipe's or the run's own data."""
    train = ("train", "convnet", "--data", "", "--out", tmp_path / "run")
    for arguments in (train, ("evaluate", run_folder, "--data", "")):
        assert "a SPEC must name a data set; got none; known are: glyphs" in error_of(capfd, *arguments)
    assert not (tmp_path / "run").exists()


def test_a_run_folder_holds_everything(run_folder):
    """Configuration, metrics a step and an epoch, checkpoints, the best by validation."""
    files = {str(path.relative_to(run_folder)) for path in run_folder.rglob("*") if path.is_file()}
    assert files == {
        "config.json", "steps.jsonl", "epochs.jsonl", "cost.json", "metrics.json",
        "checkpoints/last.keras", "checkpoints/previous.keras", "checkpoints/best.keras",
    }  # fmt: skip
    config = json.loads((run_folder / "config.json").read_text())
    assert config["recipe"] == "convnet"
    assert config["settings"]["steps"] == 6
    train, validation = (set(config["classes"][split]) for split in ("train", "validation"))
    assert len(train) == 4
    assert len(validation) == 2
    assert not train & validation


def test_evaluate_writes_every_key(run_folder, tmp_path, capfd):
    """On another folder, whole: each level and the concatenation, values from 0 to 1, a table on screen."""
    other = write_pictures(tmp_path / "other", classes=3)
    file, report = tmp_path / "new" / "metrics.json", tmp_path / "report"
    words = ["evaluate", str(run_folder), "--data", f"folder:{other}", "--json", str(file)]
    assert cli.run([*words, "--report", str(report)]) == 0
    result = json.loads(file.read_text())
    assert {key: result[key] for key in ("data", "split", "queries", "classes")} == {
        "data": f"folder:{other}", "split": "all", "queries": 15, "classes": 3
    }  # fmt: skip
    assert list(result["levels"]) == ["low", "mid", "high", "concat"]
    for values in result["levels"].values():
        assert set(values) == METRICS
        assert all(0 <= value <= 1 for value in values.values())
    assert "concat" in capfd.readouterr().out
    assert list(report.glob("*.html"))


@pytest.mark.filterwarnings("default")
def test_files_of_other_kinds_are_counted_in_one_line(run_folder, tmp_path, capfd):
    """Every command that opens the folder says so."""
    folder = write_pictures(tmp_path / "pictures", classes=3)
    (folder / "class 1" / "scan.TIF").touch()
    rll("evaluate", run_folder, "--data", f"folder:{folder}")
    assert capfd.readouterr().err.startswith(
        f"warning: {folder}: 1 file of other kinds left out, by suffix: 1 .tif; "
        "pictures are .bmp, .gif, .jpeg, .jpg, .png, .webp\n"
    )


def test_evaluate_warns_of_classes_trained_on(run_folder, tmp_path, capfd):
    """By their names, in one line on standard error; none where there are no such classes."""
    names = json.loads((run_folder / "config.json").read_text())["classes"]
    folder = write_pictures(tmp_path / "pictures", classes=3)
    trained = len(set(names["train"]) & {"class 0", "class 1", "class 2"})
    assert trained
    rll("evaluate", run_folder, "--data", f"folder:{folder}")
    assert f"warning: {run_folder} was trained on {trained} of these 3 classes" in capfd.readouterr().err
    for number in range(3):
        (folder / f"class {number}").rename(folder / f"new {number}")
    rll("evaluate", run_folder, "--data", f"folder:{folder}")
    assert capfd.readouterr().err == ""


def test_several_runs_stand_side_by_side(run_folder, tmp_path, capfd):
    """Of the same pictures, in the table, in the file and on the page; of others it is one line."""
    other = shutil.copytree(run_folder, tmp_path / "other")
    file, report = tmp_path / "metrics.json", tmp_path / "report"
    rll("evaluate", run_folder, other, "--json", file, "--report", report)
    result = json.loads(file.read_text())
    assert list(result["runs"]) == [str(run_folder), str(other)]
    assert result["runs"][str(other)]["concat"].keys() == METRICS
    page = (report / "index.html").read_text()
    for shown in (capfd.readouterr().out, page):
        for folder in (run_folder, other):
            assert f"{folder}, concat" in shown
    for fact in ("recipe", "commit", "trained", "evaluated", "loss of a step", "validation MAP@R, percent"):
        assert fact in page
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "data": "glyphs"}))
    error = error_of(capfd, "evaluate", run_folder, other)
    assert "runs must be evaluated on the same pictures: name them with --data and --split" in error
    (other / "config.json").write_text(json.dumps({**config, "settings": {**config["settings"], "seed": 1}}))
    error = error_of(capfd, "evaluate", run_folder, other)
    assert f"{run_folder} and {other} held out different classes of folder:" in error


def test_evaluate_says_which_split_the_numbers_come_from(run_folder, pictures, tmp_path):
    """The run's own folder gives its held-out classes; named, it is whole unless a split is named."""
    for arguments, split, queries in [
        ([], "validation", 10),
        (["--data", f"folder:{pictures}"], "all", 30),
        (["--data", f"folder:{pictures}", "--split", "train"], "train", 20),
        (["--data", "glyphs", "--split", "validation"], "validation", 331),
    ]:
        file = tmp_path / "metrics.json"
        assert cli.run(["evaluate", str(run_folder), *arguments, "--json", str(file)]) == 0
        result = json.loads(file.read_text())
        assert (result["split"], result["queries"]) == (split, queries)


def test_embed_and_search_with_an_artefact(exported, pictures, tmp_path, capfd):
    """The file holds what the issue of embeddings needs; a picture of the gallery finds itself first."""
    gallery = tmp_path / "gallery.npz"
    assert cli.run(["embed", str(exported), "--data", f"folder:{pictures}", "--to", str(gallery)]) == 0
    with np.load(gallery) as arrays:
        assert arrays["embeddings"].shape == (30, 24)
        assert arrays["embeddings"].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(arrays["embeddings"], axis=1), 1, atol=1e-5)
        assert arrays["labels"].tolist() == sorted(list(range(6)) * 5)
        path = str(arrays["paths"][7])
    capfd.readouterr()
    assert cli.run(["search", str(exported), "--gallery", str(gallery), path, "--top", "3"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 4
    rank, distance, *name = lines[1].split()
    assert (rank, float(distance), " ".join(name)) == ("1", 0.0, f"class 1 {path}")


def test_search_within_one_level(exported, pictures, tmp_path):
    """A gallery embedded at one level is searched at that level."""
    gallery = tmp_path / "gallery.npz"
    words = ["--data", f"folder:{pictures}", "--to", str(gallery)]
    assert cli.run(["embed", str(exported), *words, "--level", "low"]) == 0
    with np.load(gallery) as arrays:
        assert arrays["embeddings"].shape == (30, 8)
    picture = pictures / "class 0" / "0.png"
    assert cli.run(["search", str(exported), "--gallery", str(gallery), str(picture)]) == 0


def test_mistakes_before_training_are_one_line(capfd, pictures, tmp_path, run_folder):
    """Wrong recipe, data, settings, or a run folder that exists."""
    train = ("train", "convnet", "--out", tmp_path / "run")
    assert "unknown recipe 'resnet'; known are: convnet" in error_of(capfd, "train", "resnet")
    assert "nowhere does not exist" in error_of(capfd, *train, "--data", "folder:/nowhere")
    assert "unknown data set 'mnist'" in error_of(capfd, *train, "--data", "mnist")
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in error_of(capfd, *train, "--data", f"folder:{tmp_path / 'empty'}")
    assert "unknown setting 'step'; did you mean" in error_of(capfd, *train, "--set", "step=3")
    assert "steps must be a whole number; got 'many'" in error_of(capfd, *train, "--set", "steps=many")
    assert "key=value; got 'steps'" in error_of(capfd, *train, "--set", "steps")
    assert "steps must be at least 1; got 0" in error_of(capfd, *train, "--set", "steps=0")
    assert "No such option" in error_of(capfd, *train, "--stpes", "3")
    assert "is not a run" in error_of(capfd, *train, "--resume")
    message = error_of(capfd, "train", "convnet", "--out", run_folder)
    assert "holds a run already" in message
    assert "--resume" in message
    one = tmp_path / "one"
    write_pictures(one, classes=1)
    message = error_of(capfd, *train, "--data", f"folder:{one}")
    assert f"2 classes of pictures; folder:{one} has 1: a folder needs one directory per class" in message
    assert f"did you mean folder:{one}?" in error_of(capfd, *train, "--data", one)
    single = write_pictures(tmp_path / "single", per_class=1)
    message = error_of(capfd, "train", "folder", "--out", tmp_path / "run", "--data", f"folder:{single}")
    assert "classes of at least 2 pictures" in message
    assert "each of the 6 training classes of folder:" in message
    assert not (tmp_path / "run").exists()


def test_more_classes_a_batch_than_there_are(capfd, pictures, tmp_path):
    """A number that the user gives is an error; the recipe's own adapts (`test_integrity.py`)."""
    words = ("train", "convnet", "--data", f"folder:{pictures}", "--out", tmp_path / "run")
    message = error_of(capfd, *words, "--set", "classes_per_batch=5", *TINY_SETTINGS)
    assert "classes_per_batch must be at most the number of training classes (4); got 5" in message


@pytest.mark.parametrize("command", ["train", "evaluate", "embed"])
def test_a_truncated_jpeg_is_named(command, capfd, run_folder, exported, tmp_path):
    """Whichever command meets it."""
    folder = write_pictures(tmp_path / "pictures", suffix=".jpg")
    bad = folder / "class 3" / "2.jpg"
    bad.write_bytes(bad.read_bytes()[:-200])
    data = ("--data", f"folder:{folder}")
    words = {
        "train": ("train", "convnet", *data, "--out", tmp_path / "run", *TINY_SETTINGS),
        "evaluate": ("evaluate", run_folder, *data),
        "embed": ("embed", exported, *data, "--to", tmp_path / "x.npz"),
    }[command]
    error = error_of(capfd, *words)
    assert f"{bad} is not a whole picture" in error
    assert error.endswith("--skip-corrupt leaves such pictures out\n")


def test_a_process_of_its_own_says_one_line_too(pictures, tmp_path):
    """Nothing of TensorFlow's start-up stands beside it."""
    process = rll_process("evaluate", tmp_path, "--data", f"folder:{pictures}")
    assert process.returncode == 1
    assert process.stderr == f"rll: {tmp_path} is not a run: it has no config.json\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full and /proc")
def test_a_full_or_read_only_output_is_one_line(capfd, run_folder, exported, pictures, tmp_path):
    """The output folder can't be made, or what is written does not fit."""
    data = ("--data", f"folder:{pictures}")
    assert "/proc/run" in error_of(capfd, "train", "convnet", *data, "--out", "/proc/run", *TINY_SETTINGS)
    assert "/proc" in error_of(capfd, "evaluate", run_folder, "--json", "/proc/metrics.json")
    assert "/proc" in error_of(capfd, "embed", exported, *data, "--to", "/proc/x.npz")
    assert "/proc" in error_of(capfd, "export", run_folder, "--to", "/proc/exported")
    (tmp_path / "partial-x.npz").symlink_to("/dev/full")
    message = error_of(capfd, "embed", exported, *data, "--to", tmp_path / "x.npz")
    assert "No space left on device" in message
    assert not (tmp_path / "x.npz").exists()


def test_mistakes_of_the_other_commands_are_one_line(capfd, run_folder, exported, pictures, tmp_path):
    """Wrong runs, artefacts, splits, levels, galleries and pictures."""
    data = ("--data", f"folder:{pictures}")
    to = ("--to", tmp_path / "x.npz")
    assert "is not a run" in error_of(capfd, "evaluate", tmp_path)
    assert "no split 'test'" in error_of(capfd, "evaluate", run_folder, *data, "--split", "test")
    assert "is not a run" in error_of(capfd, "export", tmp_path, "--to", tmp_path / "e")
    assert "rll export RUN --to FOLDER makes one" in error_of(capfd, "embed", tmp_path, *data, *to)
    assert "no level 'top'; it has: low, mid, high" in error_of(
        capfd, "embed", exported, *data, *to, "--level", "top"
    )
    assert "ends in .npz" in error_of(capfd, "embed", exported, *data, "--to", tmp_path / "x")
    picture = pictures / "class 0" / "0.png"
    assert "has no gallery packed into it" in error_of(capfd, "search", exported, picture)
    assert "at least one IMAGE" in error_of(capfd, "search", exported)
    assert "either MODEL or --endpoint" in error_of(capfd, "embed", *data, *to)
    assert "got both" in error_of(capfd, "embed", exported, "--endpoint", "http://x:1", *data, *to)
    assert "nowhere.npz" in error_of(capfd, "search", exported, "--gallery", "/nowhere.npz", picture)
    (tmp_path / "text.npz").write_text("no arrays")
    search = ("search", exported, picture, "--gallery")
    assert "a file that rll embed wrote" in error_of(capfd, *search, tmp_path / "text.npz")
    broken = shutil.copytree(run_folder, tmp_path / "broken")
    (broken / "config.json").write_text("{")
    assert "is not a JSON file" in error_of(capfd, "evaluate", broken)


def test_a_gallery_that_does_not_fit_is_refused(capfd, exported, pictures, tmp_path):
    """Embeddings and labels of different lengths, NaN embeddings, another model's width."""
    file = tmp_path / "gallery.npz"
    good = {
        "embeddings": np.eye(4, 24, dtype=np.float32),
        "labels": np.zeros(4, int),
        "paths": np.array(list("abcd")),
        "class_names": np.array(["c"]),
        "level": np.array("concat"),
    }
    nan = good["embeddings"].copy()
    nan[2, 1] = np.nan
    picture = pictures / "class 0" / "0.png"
    for changes, message in [
        ({"labels": np.zeros(3, int)}, "it holds embeddings (4, 24), labels (3,), paths (4,)"),
        ({"embeddings": nan}, "finite"),
        ({"embeddings": np.eye(4, 9, dtype=np.float32)}, "(24 numbers each); it holds 9"),
    ]:
        np.savez(file, **{**good, **changes})
        assert message in error_of(capfd, "search", exported, picture, "--gallery", file)
    np.savez(file, **{name: values for name, values in good.items() if name != "paths"})
    assert "paths is missing" in error_of(capfd, "search", exported, picture, "--gallery", file)
    np.savez(file, **good)
    assert cli.run(["search", str(exported), str(picture), "--gallery", str(file)]) == 0
    (tmp_path / "no picture.png").write_text("text")
    message = error_of(capfd, "search", exported, tmp_path / "no picture.png", "--gallery", file)
    assert "no picture.png is not a whole picture" in message


@pytest.mark.parametrize("mistake", ["input_px=1", "levels=top", "margin=-1"])
def test_settings_that_make_no_model_leave_no_folder(capfd, mistake, pictures, tmp_path):
    """The corrected command finds nothing in its way."""
    words = ("train", "convnet", "--data", f"folder:{pictures}", "--out", tmp_path / "run")
    error_of(capfd, *words, *TINY_SETTINGS, "--set", mistake)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_training(capfd, pictures, tmp_path, monkeypatch):
    """The message says at which step, and what to change."""
    monkeypatch.setenv("RLL_PROGRESS", "0")
    words = ("train", "convnet", "--data", f"folder:{pictures}", "--out", tmp_path / "run", *TINY_SETTINGS)
    message = error_of(capfd, *words, "--set", "levels=low", "--set", "learning_rate=1e30")
    assert "the loss is nan at step" in message
    assert "lower learning_rate" in message


def test_a_damaged_gallery_is_one_line(capfd, exported, pictures, tmp_path):
    """Cut short, with labels of the wrong kind or range, or no archive at all."""
    file = tmp_path / "gallery.npz"
    picture = pictures / "class 0" / "0.png"
    rll("embed", exported, "--data", f"folder:{pictures}", "--to", file)
    capfd.readouterr()
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:300] + b"?" * 300 + whole[600:]):
        file.write_bytes(content)
        assert "a file that rll embed wrote" in error_of(
            capfd, "search", exported, picture, "--gallery", file
        )
    with file.open("wb") as stream:
        np.save(stream, np.eye(3))
    error_of(capfd, "search", exported, picture, "--gallery", file)
    arrays = {
        "embeddings": np.eye(4, 24, dtype=np.float32),
        "paths": np.array(list("abcd")),
        "class_names": np.array(["c"]),
        "level": np.array("concat"),
    }
    for labels in (np.zeros(4), np.full(4, 7)):
        np.savez(file, labels=labels, **arrays)
        assert "labels that index its 1 class_names" in error_of(
            capfd, "search", exported, picture, "--gallery", file
        )


def test_rll_alone_shows_its_help(capfd):
    """What a newcomer types first."""
    assert cli.run([]) == 2
    output = capfd.readouterr()
    assert "Commands:" in output.out
    assert output.err == ""


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["train", "cub20"], "cub200"),
        (["settings", "glyfs"], "glyphs"),
        (["train", "convnet", "--set", "step=3"], "steps"),
        (["train", "convnet", "--data", "CUB200"], "cub200"),
        (["datasets", "fetch", "cars"], "cars196"),
        (["evaluate", "RUN", "--split", "validaton"], "validation"),
        (["embed", "MODEL", "--data", "glyphs", "--split", "tets", "--to", "x.npz"], "test"),
        (["embed", "MODEL", "--data", "PICTURES", "--level", "hihg", "--to", "x.npz"], "high"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(
    arguments, suggestion, capfd, run_folder, exported, pictures, tmp_path, monkeypatch
):
    """In the same line, whatever is misspelt."""
    monkeypatch.chdir(tmp_path)
    paths = {"RUN": run_folder, "MODEL": exported, "PICTURES": f"folder:{pictures}"}
    message = error_of(capfd, *(paths.get(word, word) for word in arguments))
    assert f"did you mean {suggestion}" in message
