"""The benchmark's count of operations."""

import pytest

from benchmarks.network import operations
from rll_tf.models import embedding_model


@pytest.mark.slow
def test_operations_of_the_low_level():
    """The layers up to 3c and the low head at 75 px, multiplied out by hand."""
    stem = 38**2 * 7 * 7 * 3 * 64 + 19**2 * (64 * 64 + 9 * 64 * 192)
    block_3a = 9**2 * (192 * (64 + 64 + 64) + 9 * (64 * 64 + 64 * 96 + 96 * 96) + 192 * 32)
    block_3b = 9**2 * (256 * (64 + 64 + 64) + 9 * (64 * 96 + 64 * 96 + 96 * 96) + 256 * 64)
    block_3c = 9**2 * (320 * (128 + 64) + 9 * 64 * 96) + 5**2 * 9 * (128 * 160 + 96 * 96)
    head = 576 * 128 + 128 * 1024 + 1024 * 16
    model = embedding_model("inception_bn", ["low"], 16, input_shape=(75, 75, 3))
    assert operations(model) == 2 * (stem + block_3a + block_3b + block_3c + head)


@pytest.mark.slow
def test_operations_of_efficientnet_lite0():
    """The products of its table at 224 px, and three heads."""
    model = embedding_model("efficientnet_lite0", embedding_dim=512)
    assert operations(model) == 2 * (383_907_552 + 512 * (40 + 112 + 1280))
