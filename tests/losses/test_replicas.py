"""The global batch under `tf.distribute.MirroredStrategy`, on logical CPU devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rll_tf.losses import LOSSES

HERE = Path(__file__).parent


# Besides Ranked List Loss a scalar, and one value per query from proxies; the slow tests take all.
SOME = ("some", "n_pair", "proxy_nca")
ALL = ("all", *LOSSES)


@pytest.fixture(
    scope="module", params=[(2, SOME), *(pytest.param((n, ALL), marks=pytest.mark.slow) for n in (2, 4))]
)
def differences(request):
    """What `mirrored.py` prints for so many replicas, and these settings and losses."""
    replicas, words = request.param
    found = subprocess.run(
        [sys.executable, HERE / "mirrored.py", str(replicas), *words],
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads(found.stdout.splitlines()[-1])


def test_replicas_equal_one_device(differences):
    """Traps 5 and 6: losses, gradients and weights after five steps are those of one device.

    So with a memory of 30 embeddings. The other variant and labels of other types give the same values and
    gradients.
    """
    settings = {"", "30", "release2019", "uint8", "str"} & set(differences)
    assert settings >= {"", "30", "str"}
    for setting in settings:
        assert max(differences[setting].values()) < 1e-5, (setting, differences[setting])


def test_other_losses_of_replicas_equal_one_device(differences):
    """The whole batch's value and gradient, each replica giving its share."""
    for name in set(LOSSES) & set(differences):
        assert max(differences[name].values()) < 1e-5, (name, differences[name])


def test_a_local_gallery_is_another_loss(differences):
    """The switch keeps each replica to its own embeddings, which is not the loss of the global batch."""
    assert differences["False"]["values"] > 1e-2
    assert differences["False"]["gradient"] > 1e-2
