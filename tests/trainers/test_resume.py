"""A killed training run, taken up again."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from rll_tf.training.callbacks import StepLog
from tests.conftest import ROOT, TINY, TINY_SETTINGS, rll
from trainers import cli

CHANGES = {"steps": 14, "levels": "low,mid", "mirror": "true", "rotate_degrees": 10}
SETTINGS = [*TINY_SETTINGS, *(word for key, value in CHANGES.items() for word in ("--set", f"{key}={value}"))]


def files_of(folder):
    """What a finished run leaves: every logged step, every validation, the final metrics."""
    return {name: (folder / name).read_text() for name in ("steps.jsonl", "epochs.jsonl", "metrics.json")}


@pytest.fixture(scope="module")
def uninterrupted(pictures, tmp_path_factory):
    """The run that nothing stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    rll("train", "convnet", "--data", f"folder:{pictures}", "--out", folder, *SETTINGS)
    return folder


def test_a_run_killed_in_the_middle_ends_as_if_it_had_not_been(uninterrupted, pictures, tmp_path):
    """Kill -9 after the first checkpoint, then --resume: every step's loss and all metrics are equal."""
    folder = tmp_path / "killed"
    command = ["train", "convnet", "--data", f"folder:{pictures}", "--out", str(folder), *SETTINGS]
    with subprocess.Popen(
        [sys.executable, "-m", "trainers.cli", *command], cwd=ROOT, stdout=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoints" / "last.keras").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
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


@pytest.mark.slow
def test_a_run_in_half_precision_ends_as_if_uninterrupted(pictures, tmp_path, monkeypatch):
    """The checkpoint holds momentum, step and loss scale: no logged number differs."""
    command = ["train", "convnet", "--data", f"folder:{pictures}", *SETTINGS, "--precision", "mixed_float16"]
    command += ["--set", "steps=8", "--set", "levels=high"]
    rll(*command, "--out", tmp_path / "whole")
    log_step = StepLog.on_train_batch_end

    def stop_at_step_6(self, batch, logs=None):
        log_step(self, batch, logs)
        if self.step == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StepLog, "on_train_batch_end", stop_at_step_6)
        assert cli.run([*command, "--out", str(tmp_path / "stopped")]) != 0
    rll("train", "convnet", "--out", tmp_path / "stopped", "--resume")
    whole, stopped = files_of(tmp_path / "whole"), files_of(tmp_path / "stopped")
    assert stopped == whole
    assert [json.loads(row).get("updates", 0) for row in whole["epochs.jsonl"].splitlines()][-1] > 4


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
        (["--data", "glyphs"], "was begun on folder:"),
    ]:
        assert cli.run(["train", "convnet", "--out", str(uninterrupted), "--resume", *extra]) == 1
        errors = capfd.readouterr().err
        assert message in errors
        assert errors.count("\n") == 1
