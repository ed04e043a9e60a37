"""The exported artefact."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.python.eager import context  # has no public name
from tensorflow.python.framework import op_def_registry  # has no public name

from rll_tf.data import Preprocessing, open_dataset
from rll_tf.evaluation import concatenate_levels, nearest_neighbours
from rll_tf.models import embedding_model
from rll_tf.training import Run
from serving import export as export_module
from serving.artefact import Artefact
from serving.check import check
from serving.errors import PictureRejected
from serving.export import describe_signatures, export
from serving.guard import Limits
from serving.signatures import signatures
from tests.conftest import ROOT, rll
from trainers import cli

PREPROCESSING = Preprocessing(16, 20)
FRESH_PROCESS = ROOT / "serving" / "fresh_process.py"


@pytest.fixture(scope="module")
def model():
    """A small model with fresh weights."""
    return embedding_model("convnet", ["low"], 8, input_shape=(16, 16, 3))


@pytest.fixture(scope="module")
def loaded(artefact):
    """The artefact in this process."""
    return Artefact(artefact)


@pytest.fixture(scope="module")
def served_graph(artefact):
    """A session with the artefact as the C++ server has it, and its signatures; any shape may be fed."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(artefact))
        definition = session.graph.as_graph_def()
    for node in definition.node:
        if node.op == "Placeholder":
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(None).as_proto())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
    session = tf.compat.v1.Session(graph=graph)  # not entered: it would be every test's
    session.run(
        meta.saver_def.restore_op_name,
        {meta.saver_def.filename_tensor_name: str(artefact / "variables" / "variables")},
    )
    yield session, meta.signature_def
    session.close()


@pytest.fixture(scope="module")
def limited(run_folder, artefact_folder, tmp_path_factory):
    """The run's artefact with its own pictures packed into it, in int8 and with other limits."""
    folder = tmp_path_factory.mktemp("limited")
    gallery = artefact_folder.with_suffix(".npz")
    limits = ("--max-pixels", 5000, "--max-batch", 7)
    words = ("--gallery", gallery, "--top", 4, "--gallery-precision", "int8", *limits)
    rll("export", run_folder, "--to", folder, *words)
    return Artefact(folder)


def test_the_artefact_embeds_as_the_model_does(loaded, embeddings, pictures):
    """Files' bytes through the artefact equal the catalogue through the model, level by level and joined."""
    catalogue = open_dataset(f"folder:{pictures}")
    encoded = [catalogue.encoded(index) for index in range(len(catalogue))]
    for level, values in embeddings.items():
        np.testing.assert_allclose(loaded.embed(encoded, level), values, atol=1e-5)
    np.testing.assert_allclose(loaded.embed(encoded), concatenate_levels(embeddings), atol=1e-5)


def test_signatures_are_as_documented(artefact):
    """Names, dtypes and shapes, the batch first and free everywhere; the metadata says the same."""

    def tensor(dtype, *shape):
        return {"dtype": dtype, "shape": [None, *shape]}

    images = {"images": tensor("string")}
    expected = {
        "serving_default": {"inputs": images, "outputs": {"embedding": tensor("float32", 24)}},
        "pixels": {
            "inputs": {"pixels": tensor("uint8", 16, 16, 3)},
            "outputs": {"embedding": tensor("float32", 24)},
        },
        "search": {
            "inputs": images,
            "outputs": {
                "ids": tensor("int64", 4),
                "labels": tensor("int64", 4),
                "distances": tensor("float32", 4),
                "paths": tensor("string", 4),
                "class_names": tensor("string", 4),
            },
        },
    }
    for level in ("low", "mid", "high"):
        expected[level] = {"inputs": images, "outputs": {"embedding": tensor("float32", 8)}}
    assert describe_signatures(artefact) == expected
    metadata = json.loads((artefact / "assets.extra" / "rll_tf.json").read_text())
    assert metadata["signatures"] == expected


@pytest.mark.parametrize("shape", [(1, 15, 16, 3), (1, 16, 17, 3), (1, 16, 16, 1), (16, 16, 3)])
def test_pixels_of_another_shape_are_rejected(served_graph, shape):
    """Servers check no shapes, so the graph does."""
    session, signatures = served_graph
    pixels = signatures["pixels"].inputs["pixels"].name
    embedding = signatures["pixels"].outputs["embedding"].name
    assert session.run(embedding, {pixels: np.zeros([2, 16, 16, 3], np.uint8)}).shape == (2, 24)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Shape of tensor"):
        session.run(embedding, {pixels: np.zeros(shape, np.uint8)})


def test_search_finds_each_picture_of_its_gallery(limited, embeddings, pictures):
    """Its own path and class first, however many queries; distances as those of exact search."""
    catalogue = open_dataset(f"folder:{pictures}")
    embeddings = concatenate_levels(embeddings)
    found = limited.search([catalogue.encoded(index) for index in range(9)])
    np.testing.assert_array_equal(found.paths[:, 0], catalogue.paths[:9])
    np.testing.assert_array_equal(found.labels, np.array(catalogue.labels)[found.ids])
    np.testing.assert_array_equal(found.class_names, np.array(catalogue.class_names)[found.labels])
    _, distances = nearest_neighbours(embeddings[:9], 4, gallery=embeddings)
    np.testing.assert_allclose(found.distances, distances, atol=0.02)


def test_the_metadata_holds_the_limits_and_the_run(limited, run_folder):
    """And what the gallery's precision costs."""
    metadata = limited.metadata
    assert metadata["limits"] == {"max_pixels": 5000, "max_batch": 7}
    gallery = metadata["gallery"]
    named = {name: gallery[name] for name in ("rows", "level", "precision", "top")}
    assert named == {"rows": 30, "level": "concat", "precision": "int8", "top": 4}
    assert set(gallery["accuracy_lost"]) >= {"top_1_changed", "top_k_changed", "recall@1_after"}
    assert metadata["metrics"] == json.loads((run_folder / "metrics.json").read_text())
    assert metadata["commit"] == json.loads((run_folder / "config.json").read_text())["commit"]
    assert "random weights" in metadata["licence"]


def test_a_rejected_picture_has_an_index(limited):
    """In the list that was passed in, in whichever batch it went; also where only the decoder rejects it."""
    good = tf.io.encode_png(np.zeros([20, 20, 3], np.uint8)).numpy()
    large = tf.io.encode_png(np.zeros([50, 101, 3], np.uint8)).numpy()
    damaged = bytearray(
        tf.io.encode_png(np.random.default_rng(0).integers(0, 256, [20, 20, 3], np.uint8)).numpy()
    )
    damaged[60:400] = bytes(340)
    assert limited.embed([good] * 16).shape == (16, 24)
    for run in (limited.embed, limited.search):
        with pytest.raises(PictureRejected) as rejected:
            run([good] * 9 + [large])
        assert rejected.value.index == 9
        assert rejected.value.reason == "must have at most 5000 pixels; by its header it has 5050"
        assert str(rejected.value) == f"picture 9 {rejected.value.reason}"
        for before in (0, 1, 8):
            with pytest.raises(PictureRejected, match="PNG") as rejected:
                run([good] * before + [bytes(damaged), good])
            assert rejected.value.index == before
        with pytest.raises(PictureRejected, match="images must hold 1 to 7 pictures; got 0") as rejected:
            run([])
        assert rejected.value.index is None


def test_a_picture_beyond_the_limits_is_named(capfd, limited, tmp_path):
    """By the commands that embed with the artefact: one line with the file."""
    file = tmp_path / "class" / "large.png"
    file.parent.mkdir()
    Image.new("RGB", (101, 50)).save(file)
    reason = r"large\.png: .*must have at most 5000 pixels; by its header it has 5050"
    embedding = ("embed", limited.folder, "--data", f"folder:{tmp_path}", "--to", tmp_path / "x.npz")
    searching = ("search", limited.folder, file)
    for words in (embedding, searching):
        assert cli.run([str(word) for word in words]) == 1
        assert re.search(reason, capfd.readouterr().err)


def test_a_level_s_signature_holds_its_own_layers_alone(artefact):
    """As many convolutions as the level is deep: low has fewer than mid, mid than high."""
    signatures = tf.saved_model.load(str(artefact)).signatures
    levels = ("low", "mid", "high", "serving_default")
    counts = [sum("Conv2D" in node.op for node in _nodes(signatures[level])) for level in levels]
    assert 0 < counts[0] < counts[1] < counts[2] <= counts[3]
    model = embedding_model("convnet", ["low"], 8, input_shape=(16, 16, 3))
    assert counts[0] == sum("Conv2D" in type(layer).__name__ for layer in model.layers)


def _nodes(signature):
    """The nodes of the functions that a signature reaches."""
    definition = signature.graph.as_graph_def()
    functions = {function.signature.name: function for function in definition.library.function}
    nodes, queue = list(definition.node), list(definition.node)
    reached = set()
    while queue:
        for attribute in queue.pop().attr.values():
            for name in (attribute.func.name, *(function.name for function in attribute.list.func)):
                if name in functions and name not in reached:
                    reached.add(name)
                    nodes += functions[name].node_def
                    queue += functions[name].node_def
    return nodes


def test_pictures_of_different_sizes_and_kinds_go_in_one_batch(loaded):
    """Grey and RGB, JPEG and PNG, together as one by one."""
    encoded = []
    for number, (size, form, mode) in enumerate(
        [((30, 20), "PNG", "RGB"), ((21, 64), "JPEG", "L"), ((16, 16), "BMP", "RGB")]
    ):
        buffer = io.BytesIO()
        Image.new(mode, size, 40 * number).save(buffer, format=form)
        encoded.append(buffer.getvalue())
    together = loaded.embed(encoded)
    apart = np.concatenate([loaded.embed([content]) for content in encoded])
    np.testing.assert_allclose(together, apart, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


# Everything that an artefact's graph does: operations of TensorFlow's core, which its server ships.
OPERATIONS = """
    Abs AddV2 All Any AsString Assert AssignVariableOp AvgPool BatchMatMulV2 BroadcastTo Cast Ceil
    ConcatV2 Const ConsumeMutexLock Conv2D DecodeBmp DecodeImage DecodeJpeg DecodePng DecodeRaw
    DisableCopyOnRead EmptyTensorList EnsureShape Equal ExpandDims ExtractJpegShape Fill Floor
    FloorDiv FloorMod FusedBatchNormV3 GatherV2 Greater GreaterEqual Identity If Less LessEqual
    LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool Maximum Mean MergeV2Checkpoints Minimum Mul
    MutexLock MutexV2 Neg NoOp Pack Pad PadV2 Placeholder Pow Prod Range ReadVariableOp RealDiv
    ReduceJoin Relu Reshape ResourceGather RestoreV2 Round Rsqrt SaveV2 ScaleAndTranslate Select
    SelectV2 Shape ShardedFilename Size SplitV Sqrt Square Squeeze StatefulPartitionedCall
    StatelessIf StatelessWhile StaticRegexFullMatch StridedSlice StringJoin StringLength Sub Substr
    Sum TensorListConcatV2 TensorListFromTensor TensorListGetItem TensorListLength TensorListReserve
    TensorListSetItem TensorListStack Tile TopKV2 Transpose VarHandleOp VarIsInitializedOp Where
    While
""".split()  # noqa: SIM905


def test_the_graph_holds_known_operations_alone(limited):
    """None calls back into Python, which a server has not; every one is registered by TensorFlow itself."""
    loader = tf.compat.v1.saved_model.loader.load
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        definition = loader(session, ["serve"], str(limited.folder)).graph_def
    assert _operations(definition) <= set(OPERATIONS)
    assert not [name for name in OPERATIONS if "Py" in name or op_def_registry.get(name) is None]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["caffe", pytest.param("pytorch", marks=pytest.mark.slow)])
def test_the_graph_of_inception_bn_holds_known_operations_alone(layout):
    """Every signature's, before it is written."""
    model = embedding_model("inception_bn", layout=layout, input_shape=(75, 75, 3))
    for run, specification in signatures(model, Preprocessing(75, 80), Limits()).values():
        function = tf.function(run, input_signature=[specification]).get_concrete_function()
        assert _operations(function.graph.as_graph_def()) <= set(OPERATIONS)


def _operations(definition):
    """What the nodes of a graph and of its functions do, calls of these functions left out."""
    functions = {function.signature.name for function in definition.library.function}
    nodes = [
        *definition.node,
        *(node for function in definition.library.function for node in function.node_def),
    ]
    assert len(nodes) > 100
    return {node.op for node in nodes} - functions


@pytest.mark.slow  # the export of `limited` does it too, as every export does
def test_a_fresh_process_runs_every_signature(loaded, artefact, pictures, tmp_path):
    """Loaded and fed as the C++ server does it, by a process without Keras and this package."""
    catalogue = open_dataset(f"folder:{pictures}")
    files = [catalogue.encoded(index) for index in (0, 7, 13)]
    pixels = np.random.default_rng(0).integers(0, 256, [2, 16, 16, 3], np.uint8)
    request, response = tmp_path / "request.npz", tmp_path / "response.npz"
    content = np.frombuffer(b"".join(files), np.uint8)
    np.savez(request, bytes=content, lengths=[len(file) for file in files], pixels=pixels, batch=2)
    subprocess.run([sys.executable, "-I", FRESH_PROCESS, artefact, request, response], check=True)
    with np.load(response) as arrays:
        outputs = dict(arrays)
    described = describe_signatures(artefact)
    assert set(outputs) == {f"{name}/{key}" for name, sides in described.items() for key in sides["outputs"]}
    for level in ("serving_default", "low", "mid", "high"):
        embeddings = loaded.embed(files, None if level == "serving_default" else level)
        np.testing.assert_allclose(outputs[f"{level}/embedding"], embeddings, atol=1e-5)
    embeddings = loaded.embed([tf.io.encode_png(picture).numpy() for picture in pixels])
    np.testing.assert_allclose(outputs["pixels/embedding"], embeddings, atol=1e-5)
    found = loaded.search(files)
    np.testing.assert_allclose(outputs["search/distances"], found.distances, atol=1e-5)
    for name in ("ids", "labels", "paths", "class_names"):
        np.testing.assert_array_equal(outputs[f"search/{name}"].astype(str), getattr(found, name).astype(str))


def test_the_fresh_process_has_neither_keras_nor_this_package_nor_a_gpu():
    """From before TensorFlow is loaded."""
    before = FRESH_PROCESS.read_text(encoding="utf-8").partition("import tensorflow as tf")[0]
    code = f"""{before}
print(os.environ["CUDA_VISIBLE_DEVICES"])
for name in ("keras", "rll_tf", "serving"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        print(name)
"""
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["-1", "keras", "rll_tf", "serving"]


@pytest.mark.slow
def test_an_artefact_is_compared_with_the_model_on_the_processor(artefact, run_folder):
    """A model whose embeddings differ by little more than rounding fails; its own passed in the export."""
    run, devices = Run.open(run_folder), []
    model = run.best_model()

    def changed(pictures, training):
        devices.append(context.context().device_name)
        return {level: values + 2e-5 for level, values in model(pictures, training=training).items()}

    with pytest.raises(RuntimeError, match="low embeddings must equal the model's to 1e-05"):
        check(changed, run.settings.preprocessing, Limits(), artefact)
    assert [name.rpartition("/device:")[2] for name in devices] == ["CPU:0", "CPU:0"]


def test_versions_increase_and_are_readable_by_others(model, artefact, tmp_path, monkeypatch):
    """One more than the largest; nothing temporary is left; metadata lies in assets.extra; any umask."""

    def written(_model, _preprocessing, folder, *_):
        for file in [artefact / "saved_model.pb", *(artefact / "variables").iterdir()]:
            to = folder / file.relative_to(artefact)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(file.read_bytes())

    monkeypatch.setattr(export_module, "_write", written)  # other tests run these two
    monkeypatch.setattr(export_module, "check", lambda *_: None)
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()
    before = os.umask(0o077)
    try:
        first = export(model, PREPROCESSING, tmp_path, {"recipe": "toy"})
    finally:
        os.umask(before)
    assert first == tmp_path / "8"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["7", "8", "models.pbtxt", "notes"]
    for path in [first, *first.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)
    metadata = json.loads((first / "assets.extra" / "rll_tf.json").read_text())
    assert metadata["recipe"] == "toy"
    assert metadata["levels"] == {"low": 8}
    assert Preprocessing.from_dict(metadata["preprocessing"]) == PREPROCESSING


def test_an_artefact_that_does_not_load_is_not_published(model, tmp_path, monkeypatch):
    """A broken graph file fails in the fresh process."""

    def broken(_model, _preprocessing, folder, *_):
        (folder / "saved_model.pb").write_bytes(b"broken")

    monkeypatch.setattr(export_module, "_write", broken)
    with pytest.raises(RuntimeError, match="failed in a fresh process"):
        export(model, PREPROCESSING, tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_an_artefact_is_an_error(loaded, tmp_path):
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
    for cut in ('{"lev', "[]", "{}"):
        (tmp_path / "3" / "assets.extra" / "rll_tf.json").write_text(cut)
        with pytest.raises(ValueError, match=r"rll_tf.json must be what rll export wrote"):
            Artefact(tmp_path)
    (tmp_path / "3" / "assets.extra" / "rll_tf.json").write_text('{"levels": {}}')
    with pytest.raises(ValueError, match="is not a whole SavedModel"):
        Artefact(tmp_path)
    with pytest.raises(ValueError, match="has no level 'top'; it has: low, mid, high"):
        loaded.embed([b""], "top")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            tf.errors.OutOfRangeError(None, None, "{{node Save}} variables; File too large [Op:SaveV2]"),
            r"can't be written: variables; File too large$",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), r"No space left on device: '/"),
    ],
)
def test_a_full_disk_is_an_oserror_and_leaves_nothing(model, tmp_path, monkeypatch, error, message):
    """TensorFlow has its own errors for the file system's; the system's own name no file."""

    def full(*_):
        raise error

    monkeypatch.setattr(export_module, "_write", full)
    with pytest.raises(OSError, match=message):
        export(model, PREPROCESSING, tmp_path, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, ".partial-*/saved_model.pb"),
        (signal.SIGKILL, ".partial-*"),
        (signal.SIGKILL, ".partial-*/saved_model.pb"),
        (signal.SIGKILL, ".partial-*/assets.extra/*"),
    ],
)
def test_an_export_that_is_stopped_publishes_a_whole_version_or_none(number, moment, run_folder, tmp_path):
    """Killed, it leaves no half that a server would read; interrupted, nothing at all and one line."""
    command = [sys.executable, "-m", "trainers.cli", "export", str(run_folder), "--to", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(moment)) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(number)
    _, message = process.communicate()
    left = [entry.name for entry in tmp_path.iterdir()]
    if number == signal.SIGINT:
        assert (process.returncode, message, left) == (130, "rll: interrupted\n", [])
    elif left == ["1"]:  # it was done before the signal came
        Artefact(tmp_path).embed([tf.io.encode_png(np.zeros([20, 20, 3], np.uint8)).numpy()])
    else:
        assert process.returncode == -number
        assert [name[:9] for name in left] == [".partial-"]


def test_a_gallery_of_another_model_is_rejected(capfd, run_folder, tmp_path):
    """Another level, another width, rows that are not of unit norm."""
    good = {
        "embeddings": np.eye(4, 8, dtype=np.float32),
        "labels": np.zeros(4, int),
        "paths": np.array(list("abcd")),
        "class_names": np.array(["c"]),
        "level": np.array("low"),
    }
    file = tmp_path / "gallery.npz"
    for changes, message in [
        (
            {"level": np.array("top")},
            "one of the model's levels (low, mid, high, concat); it holds those of top",
        ),
        ({"level": np.array("concat")}, "(24 numbers each at concat); it holds 8 numbers each"),
        ({"embeddings": 2 * good["embeddings"]}, "must be of unit norm; that of row 0 is 2.0"),
    ]:
        np.savez(file, **{**good, **changes})
        words = ["export", str(run_folder), "--to", str(tmp_path / "to"), "--gallery", str(file)]
        assert cli.run(words) == 1
        assert message in capfd.readouterr().err
    assert not (tmp_path / "to").exists()
