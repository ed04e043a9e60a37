"""The package as a whole."""

import configparser
import os
import subprocess
import sys
from importlib import metadata

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
    """The package and its metadata agree."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == rll_tf.__version__ == metadata.version("rll_tf")


def test_the_package_is_typed():
    """`py.typed` is there for type checkers."""
    assert (ROOT / "rll_tf" / "py.typed").exists()
