"""The exported artefact."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from rll_tf.data import Preprocessing, open_dataset
from rll_tf.evaluation import concatenate_levels
from rll_tf.models import embedding_model
from rll_tf.training import Run, embed
from serving import export as export_module
from serving.artefact import Artefact
from serving.export import export

PREPROCESSING = Preprocessing(16, 20)


@pytest.fixture(scope="module")
def model():
    """A small model with fresh weights."""
    return embedding_model("convnet", ["low", "high"], 8, input_shape=(16, 16, 3))


def test_the_artefact_embeds_as_the_model_does(exported, run_folder, pictures):
    """Files' bytes through the artefact equal the catalogue through the model, level by level and joined."""
    run = Run.open(run_folder)
    catalogue = open_dataset(f"folder:{pictures}")
    wanted = embed(run.best_model(), catalogue, run.settings.preprocessing)
    artefact = Artefact(exported)
    encoded = [catalogue.encoded(index) for index in range(len(catalogue))]
    for level, values in wanted.items():
        np.testing.assert_allclose(artefact.embed(encoded, level), values, atol=1e-5)
    np.testing.assert_allclose(artefact.embed(encoded), concatenate_levels(wanted), atol=1e-5)


def test_signatures_take_bytes_of_any_number_of_pictures(exported):
    """Each has one input, `images` [None] string, and one output, `embedding` [None, d] float32."""
    signatures = tf.saved_model.load(str(exported / "1")).signatures
    assert set(signatures) == {"serving_default", "low", "mid", "high"}
    for name, signature in signatures.items():
        (specification,) = signature.structured_input_signature[1].values()
        assert specification.name == "images"
        assert specification.dtype == tf.string
        assert specification.shape.as_list() == [None]
        (output,) = signature.structured_outputs.items()
        assert output[0] == "embedding"
        assert output[1].shape.as_list()[1] == (24 if name == "serving_default" else 8)


def test_pictures_of_different_sizes_and_kinds_go_in_one_batch(exported):
    """Grey and RGB, JPEG and PNG, together as one by one."""
    encoded = []
    for number, (size, form, mode) in enumerate(
        [((30, 20), "PNG", "RGB"), ((21, 64), "JPEG", "L"), ((16, 16), "BMP", "RGB")]
    ):
        buffer = io.BytesIO()
        Image.new(mode, size, 40 * number).save(buffer, format=form)
        encoded.append(buffer.getvalue())
    artefact = Artefact(exported)
    together = artefact.embed(encoded)
    apart = np.concatenate([artefact.embed([content]) for content in encoded])
    np.testing.assert_allclose(together, apart, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_the_graph_holds_no_python(exported):
    """No op calls back into Python: a server has none."""
    graph = tf.compat.v1.saved_model.loader.load
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        definition = graph(session, ["serve"], str(exported / "1")).graph_def
    nodes = [
        *definition.node,
        *(node for function in definition.library.function for node in function.node_def),
    ]
    assert len(nodes) > 100
    assert not [node.op for node in nodes if "Py" in node.op]


def test_versions_increase_and_are_readable_by_others(model, tmp_path):
    """1, then one more than the largest; nothing temporary is left; metadata lies in assets.extra."""
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()
    first = export(model, PREPROCESSING, tmp_path, {"recipe": "toy"})
    assert first == tmp_path / "8"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["7", "8", "notes"]
    assert first.stat().st_mode & 0o777 == 0o755
    metadata = json.loads((first / "assets.extra" / "rll_tf.json").read_text())
    assert metadata["recipe"] == "toy"
    assert metadata["levels"] == {"low": 8, "high": 8}
    assert Preprocessing.from_dict(metadata["preprocessing"]) == PREPROCESSING


def test_an_artefact_that_answers_otherwise_is_not_published(model, tmp_path, monkeypatch):
    """If its preprocessing is not the model's, the check fails and the folder stays as it was."""
    write = export_module._write
    wrong = Preprocessing(16, 20, bgr=True)
    monkeypatch.setattr(export_module, "_write", lambda model, _, *rest: write(model, wrong, *rest))
    with pytest.raises(RuntimeError, match="low embeddings must equal the model's to 1e-05"):
        export(model, PREPROCESSING, tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_an_artefact_that_does_not_load_is_not_published(model, tmp_path, monkeypatch):
    """A broken graph file is seen by the fresh process."""
    write = export_module._write

    def broken(model, preprocessing, folder, *rest):
        write(model, preprocessing, folder, *rest)
        (folder / "saved_model.pb").write_bytes(b"broken")

    monkeypatch.setattr(export_module, "_write", broken)
    with pytest.raises(RuntimeError, match="failed in a fresh process"):
        export(model, PREPROCESSING, tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_an_artefact_is_told_apart(exported, tmp_path):
    """Missing, empty, foreign and broken ones."""
    with pytest.raises(FileNotFoundError, match=r"must be a folder; .*nowhere is none"):
        Artefact(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no <version>/saved_model\.pb"):
        Artefact(tmp_path)
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(ValueError, match="was not written by rll export"):
        Artefact(tmp_path)
    (tmp_path / "3" / "assets.extra").mkdir()
    (tmp_path / "3" / "assets.extra" / "rll_tf.json").write_text('{"levels": {}}')
    with pytest.raises(ValueError, match="is not a whole SavedModel"):
        Artefact(tmp_path)
    with pytest.raises(ValueError, match="has no level 'top'; it has: low, mid, high"):
        Artefact(exported / "1").embed([b""], "top")


def test_a_full_disk_is_an_oserror_and_leaves_nothing(model, tmp_path, monkeypatch):
    """TensorFlow has its own errors for what the file system says."""

    def full(*_):
        raise tf.errors.OutOfRangeError(None, None, "variables; File too large")

    monkeypatch.setattr(export_module, "_write", full)
    with pytest.raises(OSError, match="can't be written: variables; File too large"):
        export(model, PREPROCESSING, tmp_path, {})
    assert list(tmp_path.iterdir()) == []
