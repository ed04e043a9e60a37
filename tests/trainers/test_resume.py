"""A killed or interrupted training run, taken up again."""

import functools
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from rll_tf.evaluation import RetrievalMetrics
from rll_tf.training import Run
from rll_tf.training.callbacks import StepLog
from tests.conftest import ROOT, TINY, TINY_SETTINGS, rll
from trainers import cli

CHANGES = {"steps": 14, "levels": "low,mid", "mirror": "true", "rotate_degrees": 10, "memory": 30}
SETTINGS = [*TINY_SETTINGS, *(word for key, value in CHANGES.items() for word in ("--set", f"{key}={value}"))]


def files_of(folder):
    """What a finished run leaves: every logged step, every validation, the final metrics."""
    return {name: (folder / name).read_text() for name in ("steps.jsonl", "epochs.jsonl", "metrics.json")}


def steps_of(folder):
    """How many steps are logged."""
    file = folder / "steps.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def start(command):
    """`rll` in a process of its own."""
    words = [sys.executable, "-m", "trainers.cli", *command]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process):
    """Until it holds, while the process runs."""
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(pictures, tmp_path_factory):
    """The run that nothing stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    rll("train", "convnet", "--data", f"folder:{pictures}", "--out", folder, *SETTINGS)
    return folder


def pressing_at(method, turn):
    """A method after whose `turn`-th call Ctrl-C is pressed."""
    calls = 0

    @functools.wraps(method)
    def pressed(*arguments, **named):
        nonlocal calls
        result = method(*arguments, **named)
        calls += 1
        if calls == turn:
            signal.raise_signal(signal.SIGINT)
        return result

    return pressed


def test_a_run_killed_in_the_middle_ends_as_if_it_had_not_been(uninterrupted, pictures, tmp_path):
    """Kill -9 after the first checkpoint, then --resume: every step's loss and all metrics are equal."""
    folder = tmp_path / "killed"
    command = ["train", "convnet", "--data", f"folder:{pictures}", "--out", str(folder), *SETTINGS]
    with start(command) as process:
        wait_for((folder / "checkpoints" / "last.keras").exists, process)
        process.send_signal(signal.SIGKILL)
    assert not (folder / "metrics.json").exists()
    rll("train", "convnet", "--out", folder, "--resume")
    assert files_of(folder) == files_of(uninterrupted)


def test_logs_beyond_the_last_checkpoint_are_written_again(uninterrupted, tmp_path):
    """A kill between the log and the checkpoint, with a line cut short, leaves nothing doubled."""
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    (folder / "metrics.json").unlink()
    with (folder / "steps.jsonl").open("a") as stream:
        stream.write('{"step": 15, "loss": 0.1}\n{"step": 16, "lo')
    rll("train", "convnet", "--out", folder, "--resume")
    assert files_of(folder) == files_of(uninterrupted)


@pytest.mark.parametrize(
    ("owner", "name", "turn", "step"),
    [
        pytest.param(StepLog, "on_train_batch_end", 6, 6, marks=pytest.mark.slow),
        (RetrievalMetrics, "compute", 3, 8),
        pytest.param(StepLog, "on_train_batch_end", 4, 4, marks=pytest.mark.slow),
        pytest.param(RetrievalMetrics, "compute", 1, 0, marks=pytest.mark.slow),
        pytest.param(RetrievalMetrics, "compute", 5, 14, marks=pytest.mark.slow),
    ],
    ids=[
        "between validations",
        "while validating",
        "before a validation",
        "before the first step",
        "at the end",
    ],
)
def test_ctrl_c_saves_and_says_where(
    owner, name, turn, step, uninterrupted, pictures, tmp_path, monkeypatch, capfd
):
    """Status 130 and the step, saved; resumed, every number is that of an undisturbed run."""
    folder = tmp_path / "run"
    command = ["train", "convnet", "--data", f"folder:{pictures}", "--out", str(folder), *SETTINGS]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, pressing_at(getattr(owner, name), turn))
        assert cli.run(command) == 130
    where = (
        f"after step {step}, which {folder}/checkpoints/last.keras holds" if step else "before the first step"
    )
    message = f"rll: interrupted {where}; continue with: rll train convnet --out {folder} --resume\n"
    assert capfd.readouterr().err.endswith(message)
    rll("train", "convnet", "--out", folder, "--resume")
    assert f"continuing after step {step}\n" in capfd.readouterr().out or not step
    assert files_of(folder) == files_of(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("lines", random.Random(16).sample(range(11), 10))
def test_ctrl_c_at_a_random_moment(lines, uninterrupted, pictures, tmp_path):
    """In a process of its own, once so many steps are logged."""
    folder = tmp_path / "run"
    command = ["train", "convnet", "--data", f"folder:{pictures}", "--out", str(folder), *SETTINGS]
    with start(command) as process:
        wait_for(lambda: (folder / "config.json").exists() and steps_of(folder) >= lines, process)
        process.send_signal(signal.SIGINT)
        errors = process.communicate()[1]
    assert process.returncode == 130, errors
    found = re.search(r"^rll: interrupted after step (\d+), which", errors, re.MULTILINE)
    assert lines <= int(found[1] if found else 0) == steps_of(folder)
    rll("train", "convnet", "--out", folder, "--resume")
    assert files_of(folder) == files_of(uninterrupted)


PRESSED_TWICE = """
import signal, sys, threading
from rll_tf.training.callbacks import StepLog
from trainers import cli
log_step = StepLog.on_train_batch_end
def press(self, *arguments, **named):
    log_step(self, *arguments, **named)
    if self.step == 6:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        threading.Event().wait()  # a step that doesn't end
StepLog.on_train_batch_end = press
cli.run(sys.argv[1:])
"""


def test_a_second_ctrl_c_ends_at_once(pictures, tmp_path):
    """Within a step: status 130, and the last checkpoint is whole."""
    folder = tmp_path / "run"
    command = ["train", "convnet", "--data", f"folder:{pictures}", "--out", str(folder), *SETTINGS]
    process = subprocess.run(
        [sys.executable, "-c", PRESSED_TWICE, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 130
    assert "a second Ctrl-C ends at once" in process.stderr
    assert Run.open(folder).last_state()[1] == 4


def test_a_damaged_checkpoint_costs_an_interval(uninterrupted, tmp_path, capfd):
    """The one before takes its place, a line says so; where both are damaged, an error names one."""
    folder = shutil.copytree(uninterrupted, tmp_path / "run")
    checkpoints, whole = folder / "checkpoints", files_of(folder)
    content = (checkpoints / "last.keras").read_bytes()
    (checkpoints / "last.keras").write_bytes(content[: len(content) // 2])
    rll("train", "convnet", "--out", folder, "--resume")
    lines = capfd.readouterr().out.splitlines()
    [line] = [line for line in lines if "it may be damaged" in line]
    assert line.startswith(f"{checkpoints}/last.keras can't be loaded, it may be damaged: ")
    assert line.endswith("; training continues from previous.keras, the previous checkpoint")
    assert "continuing after step 12" in lines
    assert files_of(folder) == whole
    for name in ("last", "previous"):
        (checkpoints / f"{name}.keras").write_bytes(content[: len(content) // 2])
    assert cli.run(["train", "convnet", "--out", str(folder), "--resume"]) == 1
    assert (
        "previous.keras can't be loaded, it may be damaged: File is not a zip file" in capfd.readouterr().err
    )


@pytest.mark.slow
def test_a_run_in_half_precision_ends_as_if_uninterrupted(pictures, tmp_path, monkeypatch):
    """The checkpoint holds momentum, step and loss scale: no logged number differs."""
    command = ["train", "convnet", "--data", f"folder:{pictures}", *SETTINGS, "--precision", "mixed_float16"]
    command += ["--set", "steps=8", "--set", "levels=high"]
    rll(*command, "--out", tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(StepLog, "on_train_batch_end", pressing_at(StepLog.on_train_batch_end, 6))
        assert cli.run([*command, "--out", str(tmp_path / "stopped")]) == 130
    rll("train", "convnet", "--out", tmp_path / "stopped", "--resume")
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")
    optimizer = Run.open(tmp_path / "whole").last_state()[0].optimizer
    assert int(optimizer.inner_optimizer.iterations) > 4  # steps whose scaled loss overflows make no update


def test_a_finished_run_is_left_as_it_is(uninterrupted):
    """--resume after the end changes nothing and ends well."""
    before = files_of(uninterrupted)
    rll("train", "convnet", "--out", uninterrupted, "--resume")
    assert files_of(uninterrupted) == before


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(uninterrupted, tmp_path):
    """Only the configuration is there."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text((uninterrupted / "config.json").read_text())
    rll("train", "convnet", "--out", folder, "--resume")
    assert files_of(folder) == files_of(uninterrupted)


def test_the_logs_hold_each_step_and_each_validation(uninterrupted):
    """14 steps, whose means over an epoch are in the epoch's line; validation after 0, 4, 8, 12 and 14."""
    steps = [json.loads(line) for line in (uninterrupted / "steps.jsonl").read_text().splitlines()]
    epochs = [json.loads(line) for line in (uninterrupted / "epochs.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps] == list(range(1, 15))
    assert [row["step"] for row in epochs] == [0, 4, 8, 12, 14]
    for row in steps:
        assert row["loss"] == pytest.approx(row["low_loss"] + row["mid_loss"], rel=1e-5)
    assert epochs[2]["loss"] == pytest.approx(sum(row["loss"] for row in steps[4:8]) / 4)
    for name, share in epochs[2]["mined"].items():
        assert share == pytest.approx(sum(row[name] for row in steps[4:8]) / 4)
        assert 0 <= share <= 1
    assert "low_negative_share" in epochs[2]["mined"]
    assert set(epochs[0]["validation"]) == {"low", "mid", "concat"}
    best = max(epochs, key=lambda row: row["validation"]["concat"]["map@r"])
    metrics = json.loads((uninterrupted / "metrics.json").read_text())
    assert metrics["best_step"] == best["step"]
    assert metrics["validation"]["concat"]["recall@1"] == pytest.approx(
        best["validation"]["concat"]["recall@1"]
    )


def test_other_settings_data_or_recipe_are_refused(uninterrupted, capfd):
    """A resumed run keeps what it began with."""
    for extra, message in [
        (["--set", f"steps={TINY['steps'] + 1}"], "a resumed run keeps its settings"),
        (["--data", "glyphs"], "was started on folder:"),
    ]:
        assert cli.run(["train", "convnet", "--out", str(uninterrupted), "--resume", *extra]) == 1
        errors = capfd.readouterr().err
        assert message in errors
        assert errors.count("\n") == 1
