"""The package as a whole."""

import configparser
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata

import pytest

import rll_tf
from tests.conftest import ROOT


def test_another_keras_backend_is_one_clear_error():
    """The last line names the backend and what to set."""
    process = subprocess.run(
        [sys.executable, "-c", "import rll_tf"],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert (
        "ImportError: rll_tf needs Keras with the TensorFlow backend; it is configured for 'jax'"
        in (process.stderr.splitlines()[-1])
    )


def test_public_names_are_where_others_look_for_them():
    """The names that ARCHITECTURE promises."""
    assert rll_tf.RankedListLoss is rll_tf.losses.RankedListLoss
    for room, names in {
        rll_tf.losses: ["ranked_list_loss"],
        rll_tf.models: ["embedding_model"],
        rll_tf.data: ["open_dataset", "class_balanced_batches"],
        rll_tf.evaluation: ["retrieval_metrics", "RetrievalMetrics"],
    }.items():
        assert set(names) <= set(dir(room))


def test_the_version_is_written_once():
    """The package, its metadata and how it is cited agree."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == rll_tf.__version__ == metadata.version("rll_tf")
    assert f"\nversion: {rll_tf.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


PACKAGES = ("rll_tf", "trainers", "serving")


def packaged():
    """The files of the packages in this checkout."""
    files = {
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    assert {
        "rll_tf/py.typed",
        "serving/py.typed",
        "rll_tf/evaluation/report.html.j2",
        "serving/config/monitoring.pbtxt",
    } <= files
    return files


def built(kind, tmp_path):
    """The `wheel` or `sdist` of a copy of this checkout, where no earlier build left anything."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "exported")
    shutil.copytree(ROOT, tmp_path / "source", ignore=ignored)
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "source", check=True, capture_output=True)
    return next(tmp_path.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


@pytest.mark.slow
def test_the_wheel_holds_the_packages_files(tmp_path):
    """Each of them, and beside its own metadata nothing else."""
    with zipfile.ZipFile(built("wheel", tmp_path)) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == packaged()


@pytest.mark.slow
def test_the_sdist_holds_what_a_wheel_is_built_from(tmp_path):
    """The same files, and no tests, benchmarks or pages."""
    with tarfile.open(built("sdist", tmp_path)) as sdist:
        names = {entry.name.partition("/")[2] for entry in sdist.getmembers() if entry.isfile()}
    assert packaged() | {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/", "examples/"))]
