"""What embeds for `rll embed` and `rll search`: which picture is rejected, and how it is named."""

import numpy as np
import pytest

from rll_tf.data import open_dataset
from serving.client import RequestError
from serving.errors import PictureRejected
from tests.conftest import write_pictures
from trainers import embedder
from trainers.embedder import EndpointEmbedder, FolderEmbedder, name_rejected


def test_a_rejected_picture_has_its_index_among_all(exported, pictures):
    """Beyond the first batch; what is before it is embedded once."""
    good = (pictures / "class 0" / "0.png").read_bytes()
    folder = FolderEmbedder(exported)
    assert folder.levels == ["low", "mid", "high"]
    assert folder.embed([good] * 70).shape == (70, 24)
    with pytest.raises(PictureRejected) as rejected:
        folder.embed([good] * 66 + [good[:-20]] + [good] * 3)
    assert rejected.value.index == 66


class Client:
    """A client whose endpoint rejects the fourth picture."""

    url = "http://x:1"

    def __init__(self, *_, **__):
        pass

    def metadata(self):
        """As TensorFlow Serving's, with Keras's own."""
        return dict.fromkeys(["__saved_model_init_op", "serving_default", "pixels", "low", "high"])

    def embed(self, pictures, level):
        """Reject."""
        raise RequestError(self.url, "assertion failed: [images[3] must have at most 5 pixels]", 400)


def test_an_endpoints_rejection_is_the_same_error(monkeypatch):
    """With index and reason; its signatures that are levels are its levels."""
    monkeypatch.setattr(embedder, "EmbeddingClient", Client)
    endpoint = EndpointEmbedder("http://x:1", "rll_tf")
    assert endpoint.levels == ["high", "low"]
    with pytest.raises(PictureRejected) as rejected:
        endpoint.embed([b"picture"] * 5)
    assert (rejected.value.index, rejected.value.reason) == (3, "must have at most 5 pixels")
    with pytest.raises(ValueError, match="http://x:1 has no level 'top'; it has: high, low"):
        endpoint.embed([b"picture"], "top")
    with pytest.raises(ValueError, match="has no gallery packed into it"):
        endpoint.search([b"picture"])


def test_a_rejected_picture_is_named_by_its_path(tmp_path):
    """That it does not decode, or with the model's reason; without an index the first of those."""
    folder = write_pictures(tmp_path / "pictures", classes=2, per_class=2)
    bad = folder / "class 1" / "0.png"
    bad.write_bytes(b"no picture")
    catalogue = open_dataset(f"folder:{folder}")
    index = catalogue.paths.index(str(bad))
    for given in (index, None, 10_000):
        message = str(name_rejected(catalogue, PictureRejected(given, "must be small")))
        assert message == f"{bad} is not a whole picture that TensorFlow can decode"
    other = 1 - index if index < 2 else 0
    message = str(name_rejected(catalogue, PictureRejected(other, "must be small")))
    assert message == f"{catalogue.paths[other]}: must be small"
    whole = catalogue.take(np.array([other]))
    error = PictureRejected(None, "the request must be small")
    assert name_rejected(whole, error) is error
