"""What several rooms' tests share."""

import collections
import os
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

from trainers import cli

# No test asserts on time, property tests included.
hypothesis.settings.register_profile("rll", deadline=None, print_blob=True)
hypothesis.settings.load_profile("rll")

ROOT = Path(__file__).parent.parent
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


@pytest.fixture(autouse=True)
def _same_start():
    """Every test starts from the same seeds, and without the determinism that `rll train` turns on."""
    keras.utils.set_random_seed(0)
    yield
    disable_op_determinism()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of six classes of five small pictures."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def run_folder(pictures, tmp_path_factory):
    """A run of six steps on these pictures."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    rll("train", "convnet", "--data", f"folder:{pictures}", "--out", folder, *TINY_SETTINGS)
    return folder


@pytest.fixture(scope="session")
def exported(run_folder, tmp_path_factory):
    """The run's artefact."""
    folder = tmp_path_factory.mktemp("exported")
    rll("export", run_folder, "--to", folder)
    return folder


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
