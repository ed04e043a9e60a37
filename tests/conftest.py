"""What several rooms' tests share."""

import collections
import dataclasses
import fcntl
import functools
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import hypothesis
import keras
import numpy as np
import pytest
from PIL import Image
from tensorflow.python.framework.config import disable_op_determinism  # has no public name

from rll_tf.data import DATASETS
from serving import export
from trainers import cli, embedder

# No test asserts on time, property tests included. `make test-all` names the second.
hypothesis.settings.register_profile("rll", deadline=None, print_blob=True, max_examples=30)
hypothesis.settings.register_profile("thorough", deadline=None, print_blob=True, max_examples=200)
hypothesis.settings.load_profile("rll")

# A shell's background job ignores Control-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
# They send requests to `rll serve`, which takes seconds to start.
SERVER_TESTS = {
    f"test_{name}.py" for name in ("bad_requests", "conformance", "load", "openapi", "page", "proxy", "serve")
}
TINY = {"input_px": 16, "embedding_dim": 8, "steps": 6, "validate_every_steps": 4, "validation_share": 0.4}
TINY_SETTINGS = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]


def write_pictures(folder, classes=6, per_class=5, suffix=".png"):
    """A folder of small pictures: a class is a pattern, its pictures differ by noise."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        pattern = rng.integers(0, 200, [20, 24, 3])
        for number in range(per_class):
            file = folder / f"class {label}" / f"{number}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pattern + rng.integers(0, 55, pattern.shape)).astype(np.uint8)).save(file)
    return folder


def rll(*arguments):
    """Run a command that must succeed, in this process."""
    assert cli.run([str(argument) for argument in arguments]) == 0


def rll_process(*arguments):
    """Run a command in a process of its own, as a user does."""
    command = [sys.executable, "-m", "trainers.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    """A file's tests stay together, since they share fixtures, and so do all that need the server."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "server" if Path(file).name in SERVER_TESTS else file

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def _same_start():
    """Every test starts from the same seeds, and without the determinism that `rll train` turns on."""
    keras.utils.set_random_seed(0)
    yield
    disable_op_determinism()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id):
    """`made_once(name, make)`: the folder that `make(folder)` fills, once for all workers; only read."""
    root = tmp_path_factory.getbasetemp()
    root = (root if worker_id == "master" else root.parent) / "made_once"
    root.mkdir(exist_ok=True)

    def folder_of(name, make):
        folder, done = root / name, root / f"{name}.done"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session", autouse=True)
def _opened_once():
    """A worker's commands open the same glyphs and artefacts many times, which takes seconds each time."""
    opened = DATASETS["glyphs"]
    DATASETS["glyphs"] = dataclasses.replace(opened, open=functools.cache(opened.open))
    embedder.Artefact = functools.lru_cache(maxsize=4)(embedder.Artefact)


@pytest.fixture(scope="session")
def pictures(made_once):
    """A folder of six classes of five small pictures."""
    return made_once("pictures", write_pictures)


@pytest.fixture(scope="session")
def run_folder(pictures, made_once):
    """A run of six steps on these pictures."""

    def make(folder):
        rll("train", "convnet", "--data", f"folder:{pictures}", "--out", folder, *TINY_SETTINGS)

    return made_once("run", make)


def export_unchecked(*arguments):
    """`rll export` without its check in a fresh process, most of its time; `test_export.py` runs that."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(export, "check", lambda *_: None)
        rll("export", *arguments)


@pytest.fixture(scope="session")
def exported(run_folder, made_once):
    """The run's artefact."""
    return made_once("exported", lambda folder: export_unchecked(run_folder, "--to", folder))


@pytest.fixture
def shared_data(tmp_path):
    """Unpack an archive of real pictures by name: a folder with a few pictures of each class."""
    if not os.environ.get("RLL_SHARED"):
        pytest.skip("RLL_SHARED is unset: the archives of real pictures are elsewhere")

    def unpack(name, per_class=4):
        taken = collections.Counter()
        with zipfile.ZipFile(Path(os.environ["RLL_SHARED"], "data", f"{name}.zip")) as archive:
            for entry in sorted(archive.namelist()):
                if entry.lower().endswith((".png", ".jpg")) and taken[os.path.dirname(entry)] < per_class:
                    taken[os.path.dirname(entry)] += 1
                    archive.extract(entry, tmp_path / name)
        return tmp_path / name

    return unpack
