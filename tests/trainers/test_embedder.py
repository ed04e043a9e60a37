"""What embeds for `rll embed` and `rll search`: which picture is rejected, and how it is named."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from rll_tf.data import open_dataset
from serving.client import RequestError
from serving.errors import PictureRejected
from serving.gallery import Identity
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

    def __init__(self, *_, version=None, **__):
        self.version = version

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def current_version(self):
        """The fifth."""
        assert self.version is None
        return 5

    def metadata(self):
        """As TensorFlow Serving's, with Keras's own."""
        return dict.fromkeys(["__saved_model_init_op", "serving_default", "pixels", "low", "high"])

    def embed(self, pictures, level):
        """Reject."""
        assert self.version == 5
        raise RequestError(self.url, "assertion failed: [images[3] must have at most 5 pixels]", 400)


def test_an_endpoints_rejection_is_the_same_error(monkeypatch):
    """With index and reason; its signatures that are levels are its levels."""
    monkeypatch.setattr(embedder, "EmbeddingClient", Client)
    endpoint = EndpointEmbedder("http://x:1", "rll_tf")
    assert endpoint.levels == ["high", "low"]
    assert endpoint.identity == Identity(5)
    with pytest.raises(PictureRejected) as rejected:
        endpoint.embed([b"picture"] * 5)
    assert (rejected.value.index, rejected.value.reason) == (3, "must have at most 5 pixels")
    with pytest.raises(ValueError, match="http://x:1 has no level 'top'; it has: high, low"):
        endpoint.embed([b"picture"], "top")
    with pytest.raises(ValueError, match="has no gallery packed into it"):
        endpoint.search([b"picture"])


@pytest.mark.parametrize(("status", "kind"), [
    (400, PictureRejected), ("INVALID_ARGUMENT", PictureRejected), (401, RequestError), (404, RequestError),
])  # fmt: skip
def test_what_is_not_about_pictures_stays_what_it_is(status, kind, monkeypatch):
    """A password that is missing or a version that is gone is no reason to decode everything."""

    class Refusing(Client):
        def embed(self, *_):
            raise RequestError(self.url, "no", status)

    monkeypatch.setattr(embedder, "EmbeddingClient", Refusing)
    with pytest.raises(kind, match="no"):
        EndpointEmbedder("http://x:1", "rll_tf").embed([b"picture"])


@pytest.mark.parametrize(("here", "written", "is_refused"), [
    (Identity(2, "a"), {"version": 1, "weights_sha256": "a"}, False),
    (Identity(1, "a"), {"version": 1, "weights_sha256": "b"}, True),
    (Identity(2), {"version": 1, "weights_sha256": "a"}, True),
    (Identity(1), {"version": 1, "weights_sha256": "a"}, False),
    (Identity(1, "a"), {"version": -1, "weights_sha256": ""}, False),
    (Identity(1, "a"), {}, False),
    (Identity(None, None), {"version": 1, "weights_sha256": "a"}, False),
])  # fmt: skip
def test_a_gallery_of_another_model_is_refused(here, written, is_refused):
    """By its weights where both are known, else by the version; what nobody wrote down is not checked."""
    gallery = {name: np.array(value) for name, value in written.items()}
    refused = pytest.raises(
        ValueError, match=r"g\.npz must hold embeddings of this model, .*: run rll embed again"
    )
    with refused if is_refused else contextlib.nullcontext():
        here.check_embedded(Path("g.npz"), gallery)


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
