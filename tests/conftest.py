"""What several rooms' tests share."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Before anything imports TensorFlow: its start-up messages are no news in a test's output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

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


def rll(*arguments, check=True, **options):
    """Run a command in a process of its own, as a user does."""
    process = subprocess.run(
        [sys.executable, "-m", "trainers.cli", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    if check and process.returncode:
        raise AssertionError(f"rll {arguments} failed: {process.stderr}")
    return process


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
