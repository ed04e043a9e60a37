"""Agreement with pytorch-metric-learning, where its definition is the paper's."""

import warnings

import numpy as np
import pytest

from rll_tf.losses import ranked_list_loss
from tests.losses.test_ranked_list import batch

torch = pytest.importorskip("torch", reason="torch is not installed: make test-all")
losses = pytest.importorskip(
    "pytorch_metric_learning.losses", reason="pytorch-metric-learning is not installed: make test-all"
)


@pytest.mark.parametrize("temperature", [0.0, 2.0, 5.0])
@pytest.mark.parametrize("positive_temperature", [0.0, 2.0])
@pytest.mark.parametrize("imbalance", [0.5, 0.3])
def test_values_agree_with_pytorch_metric_learning(temperature, positive_temperature, imbalance):
    """Unit embeddings, no negative at distance 0: values within 1e-3, its epsilon a pair aside."""
    labels, embeddings = batch(count=60)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = losses.RankedListLoss(
            margin=0.3, Tn=temperature, imbalance=imbalance, alpha=1.1, Tp=positive_temperature
        )(torch.from_numpy(embeddings), torch.from_numpy(labels))
    ours = ranked_list_loss(
        labels,
        embeddings,
        alpha=1.1,
        margin=0.3,
        temperature=temperature,
        positive_temperature=positive_temperature,
        balance=imbalance,
    )
    assert float(theirs) == pytest.approx(float(np.mean(ours)) / 2, rel=1e-3)
