"""Training on several devices: parts of one CPU, and processes on one machine.

Each is a process of its own: devices are set up before TensorFlow starts.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from rll_tf.training import Settings, make_strategy
from tests.conftest import ROOT, TINY_SETTINGS, rll
from trainers import cli

SHORT = [*TINY_SETTINGS, "--set", "classes_per_batch=4", "--set", "memory=20", "--set", "mirror=true"]
# In float64, and at a tenth of the recipe's rate: under it rounding grows a hundredfold a step at first,
# and in float32 losses are 0.05 apart after 200 steps.
LONG = ["--precision", "float64", "--set", "steps=200", "--set", "classes_per_batch=24"]
LONG += ["--set", "input_px=32", "--set", "learning_rate=0.04"]
SYNCHRONISED = ["--set", "sync_batch_norm=true"]


def mirrored(replicas):
    """Options of `rll train`."""
    return ["--strategy", "mirrored", "--set", f"replicas={replicas}"]


WORKERS = ["--strategy", "multi_worker"]


def start(command, environment=None):
    """`rll train convnet` in a process of its own."""
    words = [sys.executable, "-m", "trainers.cli", "train", "convnet", *map(str, command)]
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, **(environment or {}), "RLL_PROGRESS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_workers(command, count=2):
    """The same command in several processes that find each other on loopback; the first is the chief."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    configs = [
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        for index in range(count)
    ]
    return [start([*command, *WORKERS], {"TF_CONFIG": json.dumps(config)}) for config in configs]


def finish(processes):
    """Standard output of each, once all have ended well."""
    outputs = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in outputs]


def rows(folder, name):
    """The lines of a log."""
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def largest_difference(run, other):
    """Of a step's losses and shares of mined queries; the steps are the same."""
    pairs = list(zip(rows(run, "steps.jsonl"), rows(other, "steps.jsonl"), strict=True))
    assert all(one["step"] == two["step"] and one.keys() == two.keys() for one, two in pairs)
    return max(abs(one[name] - two[name]) for one, two in pairs for name in one)


def metrics(folder):
    """Every number of `metrics.json`'s validation."""
    found = json.loads((folder / "metrics.json").read_text())["validation"]
    return {(level, name): value for level, values in found.items() for name, value in values.items()}


@pytest.fixture(scope="module")
def short_runs(pictures, tmp_path_factory):
    """Six steps on one device, on two parts of the CPU and in two processes."""
    folder = tmp_path_factory.mktemp("short")
    words = ["--data", f"folder:{pictures}", *SHORT, *SYNCHRONISED]
    processes = [
        start([*words, "--out", folder / "mirrored", *mirrored(2)]),
        *start_workers([*words, "--out", folder / "workers"]),
    ]
    rll("train", "convnet", "--out", folder / "one", *words)
    (folder / "worker 1.txt").write_text(finish(processes)[-1])
    return folder


@pytest.mark.parametrize("several", ["mirrored", "workers"])
def test_several_devices_train_as_one_does(several, short_runs):
    """Same global batch, batch norm synchronised: the same losses, mined shares and metrics; a memory too."""
    assert largest_difference(short_runs / several, short_runs / "one") < 1e-4
    assert metrics(short_runs / several) == pytest.approx(metrics(short_runs / "one"), abs=5e-3)
    settings = json.loads((short_runs / several / "config.json").read_text())["settings"]
    assert settings["precision"] == "float32"
    assert settings["deterministic"] is True


def test_only_the_chief_reports(short_runs):
    """The other worker prints what it trains on, and no result."""
    printed = (short_runs / "worker 1.txt").read_text()
    assert "training on 20 pictures of 4 classes" in printed
    assert "best checkpoint" not in printed
    assert [row["step"] for row in rows(short_runs / "workers", "steps.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows(short_runs / "workers", "epochs.jsonl")] == [0, 4, 6]


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """200 steps on glyphs, on one device."""
    folder = tmp_path_factory.mktemp("long")
    rll("train", "convnet", "--out", folder / "one", *LONG, *SYNCHRONISED)
    return folder / "one"


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4, "workers"])
@pytest.mark.parametrize("synchronised", [True, False], ids=["synchronised", "local"])
def test_200_steps_on_glyphs(devices, synchronised, long_run, tmp_path):
    """Synchronised batch norm: the losses of one device to 1e-4, all metrics to half a point.

    Local is another training: Recall@1, MAP@R and R-precision of the concatenation to three points.
    """
    words = ["--out", tmp_path / "run", *LONG, *(SYNCHRONISED if synchronised else [])]
    finish(start_workers(words) if devices == "workers" else [start([*words, *mirrored(devices)])])
    if synchronised:
        assert largest_difference(tmp_path / "run", long_run) < 1e-4
        assert metrics(tmp_path / "run") == pytest.approx(metrics(long_run), abs=5e-3)
    else:
        found, wanted = metrics(tmp_path / "run"), metrics(long_run)
        for name in ("recall@1", "map@r", "r_precision"):
            assert found["concat", name] == pytest.approx(wanted["concat", name], abs=3e-2)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1], ids=["the chief", "the other"])
def test_a_killed_worker_ends_the_others_and_all_resume(killed, pictures, tmp_path):
    """Within 60 seconds and with one line; then every logged number is that of an undisturbed run."""
    words = ["--data", f"folder:{pictures}", *SHORT, "--set", "steps=60"]
    finish(start_workers([*words, "--out", tmp_path / "whole"]))
    workers = start_workers([*words, "--out", tmp_path / "run"])
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / "checkpoints" / "previous.keras").exists():
        assert time.monotonic() < deadline
        assert [worker.poll() for worker in workers] == [None, None]
        time.sleep(0.01)
    workers[killed].send_signal(signal.SIGKILL)
    errors = workers[1 - killed].communicate(timeout=60)[1]
    workers[killed].communicate()
    assert workers[1 - killed].returncode == 1
    assert errors == (
        "rll: another worker is gone, so training can't continue: start all of them again with --resume\n"
    )
    finish(start_workers(["--out", tmp_path / "run", "--resume"]))
    for name in ("steps.jsonl", "epochs.jsonl", "metrics.json"):
        assert (tmp_path / "run" / name).read_text() == (tmp_path / "whole" / name).read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy", "both"], "strategy must be one of none, mirrored, multi_worker; got 'both'"),
        (["--set", "replicas=2"], "replicas is for strategy=mirrored; got strategy=none"),
        (["--strategy", "multi_worker"], 'TF_CONFIG must have the form {"cluster": '),
    ],
)
def test_a_mistake_is_one_line(words, message, tmp_path, monkeypatch, capfd):
    """What must hold, and what was received."""
    only_one = {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(only_one))
    assert cli.run(["train", "convnet", "--out", str(tmp_path / "run"), *words]) == 1
    errors = capfd.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_each_device_needs_as_many_classes(pictures, tmp_path):
    """The classes of a batch are shared out."""
    words = ["--data", f"folder:{pictures}", *SHORT, "--set", "classes_per_batch=3", *mirrored(2)]
    process = start([*words, "--out", tmp_path / "run"])
    assert process.communicate()[1] == (
        "rll: classes_per_batch must be a multiple of the number of devices (2), so that each has as many; "
        "got 3\n"
    )
    assert not (tmp_path / "run").exists()


def test_one_device_is_no_strategy():
    """`none` changes nothing about Keras's `fit`."""
    assert make_strategy(Settings()).num_replicas_in_sync == 1
