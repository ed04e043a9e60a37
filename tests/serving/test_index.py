"""A FAISS index of a gallery: what it finds, what it says of its recall, and Parquet in and out."""

import json

import numpy as np
import pytest

from rll_tf.evaluation import nearest_neighbours
from serving import index as index_module
from serving import parquet
from serving.index import Index, build_index, choose_kind

pytest.importorskip("faiss")
pa = pytest.importorskip("pyarrow")

DIM, CLASSES, PER_CLASS = 16, 60, 20


@pytest.fixture(scope="module")
def arrays():
    """1,200 rows of 60 classes, as `rll embed` writes them."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    vectors = rng.normal(size=[CLASSES, DIM])[labels] + rng.normal(scale=0.8, size=[len(labels), DIM])
    return {
        "embeddings": (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
        "labels": labels,
        "paths": np.array([f"é/{row}.png" for row in range(len(labels))]),
        "class_names": np.array([f"class {label}" for label in range(CLASSES)]),
        "level": np.array("low"),
        "version": np.array(3),
        "weights_sha256": np.array("ab"),
    }


@pytest.fixture(scope="module")
def file(arrays, tmp_path_factory):
    """As an `.npz` file."""
    file = tmp_path_factory.mktemp("gallery") / "gallery.npz"
    np.savez(file, **arrays)
    return file


@pytest.fixture(scope="module")
def folder(arrays, tmp_path_factory):
    """As a folder of two Parquet files, in row groups of 300."""
    folder = tmp_path_factory.mktemp("gallery")
    for number, rows in enumerate([slice(0, 500), slice(500, None)]):
        count = len(arrays["labels"][rows])
        columns = [
            pa.FixedSizeListArray.from_arrays(arrays["embeddings"][rows].ravel(), DIM),
            arrays["class_names"][arrays["labels"][rows]],
            arrays["paths"][rows],
            *(np.full(count, arrays[name]) for name in parquet.OF_THE_MODEL),
        ]
        table = pa.table([pa.array(column) for column in columns], schema=parquet.schema(DIM))
        pa.parquet.write_table(table, folder / f"embeddings-{number}.parquet", row_group_size=300)
    return folder


@pytest.fixture(scope="module")
def queries(arrays):
    """50 unit vectors near rows."""
    vectors = arrays["embeddings"][::24] + np.random.default_rng(1).normal(scale=0.1, size=[50, DIM])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_folder_of_parquet_files_is_the_gallery(arrays, folder):
    """All arrays come back as the `.npz` file has them, but for the numbers of the classes."""
    found = parquet.read_folder(folder)
    for name in ("embeddings", "paths", *parquet.OF_THE_MODEL):
        np.testing.assert_array_equal(found[name], arrays[name])
    np.testing.assert_array_equal(
        found["class_names"][found["labels"]], arrays["class_names"][arrays["labels"]]
    )


@pytest.mark.parametrize("source", ["file", "folder"])
def test_a_flat_index_is_exact(arrays, source, queries, request, tmp_path):
    """Same neighbours and distances as exact search, whichever form the gallery has; recall 1."""
    built = build_index(request.getfixturevalue(source), tmp_path / "index")
    assert (built["kind"], built["effort"], built["recall@10"], built["rows"]) == ("Flat", None, 1, 1200)
    distances, names, paths = Index(tmp_path / "index").search(queries, 5)
    ids, wanted = nearest_neighbours(queries, 5, gallery=arrays["embeddings"])
    np.testing.assert_allclose(distances, wanted, atol=1e-5)
    np.testing.assert_array_equal(paths, arrays["paths"][ids])
    np.testing.assert_array_equal(names, arrays["class_names"][arrays["labels"][ids]])


@pytest.mark.parametrize(
    ("kind", "most"), [("HNSW3", 1200), ("IVF32,Flat", 32), ("IVF16,SQ8", 16), ("RR16,IVF16,SQ8", 16)]
)
def test_it_searches_as_hard_as_the_recall_asks_for(arrays, folder, kind, most, queries, tmp_path):
    """And no harder; the recall that it states is that of queries that it has not seen, nearly."""
    efforts, found = [], []
    for target in (0.3, 0.9):
        built = build_index(folder, tmp_path / str(target), kind=kind, target_recall=target)
        assert built["recall@10"] >= target
        efforts.append(built["effort"])
        found.append(Index(tmp_path / str(target)).search(queries, 10)[2])
    assert 1 <= efforts[0] < efforts[1] <= most
    ids, _ = nearest_neighbours(queries, 10, gallery=arrays["embeddings"])
    recall = [
        np.mean([np.isin(a, b).mean() for a, b in zip(arrays["paths"][ids], paths, strict=True)])
        for paths in found
    ]
    assert recall[1] > 0.75
    assert recall[1] > recall[0]


def test_the_stated_recall_is_what_a_double_loop_counts(arrays, file, tmp_path, monkeypatch):
    """Of rows searched for among the others, a duplicate's nearest included."""
    monkeypatch.setattr(index_module, "QUERIES", 1200)
    built = build_index(file, tmp_path / "index", kind="IVF32,Flat", target_recall=0)
    assert built["effort"] == 1
    faiss_index = Index(tmp_path / "index")._index
    rows = arrays["embeddings"]
    hits = 0
    for row, vector in enumerate(rows.astype(float)):
        squares = ((rows - vector) ** 2).sum(axis=1)
        nearest = [other for other in np.argsort(squares, kind="stable") if other != row][:10]
        found = [other for other in faiss_index.search(rows[[row]], 11)[1][0] if other != row][:10]
        hits += len(set(nearest) & set(found))
    assert built["recall@10"] == pytest.approx(hits / 12_000, abs=2e-3)  # ties within rounding
    assert built["recall@10"] < 0.95


def test_fewer_rows_than_asked_for(arrays, tmp_path):
    """All are found, one finds itself; a single row is an index, too."""
    for count in (1, 3):
        few = {name: arrays[name][:count] for name in ("embeddings", "labels", "paths")}
        np.savez(tmp_path / f"{count}.npz", **{**arrays, **few})
        built = build_index(tmp_path / f"{count}.npz", tmp_path / str(count))
        assert built["recall@10"] == 1
        distances, _, paths = Index(tmp_path / str(count)).search(arrays["embeddings"][:1], 10)
        assert distances.shape == paths.shape == (1, count)
        assert paths[0, 0] == "é/0.png"
        assert distances[0, 0] == pytest.approx(0, abs=1e-3)


def test_the_size_chooses_the_kind():
    """Exact while that is quick, a graph while it fits into memory, cells beyond."""
    assert choose_kind(20_000) == "Flat"
    assert choose_kind(20_001) == choose_kind(1_000_000) == "HNSW32"
    assert choose_kind(4_000_000) == "IVF16000,SQ8"


def test_mistakes_are_one_line(arrays, file, folder, tmp_path):
    """An unknown kind, a folder that is there, a damaged index, a file that is no embeddings."""
    for kind, reason in [("Tree", "could not parse"), ("IVF5000,Flat", "should be at least as large")]:
        with pytest.raises(ValueError, match=f"FAISS must know .* got '{kind}' and 1,200 rows.*{reason}"):
            build_index(file, tmp_path / "index", kind=kind)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="must name a folder that isn't there yet"):
        build_index(file, folder)
    build_index(file, tmp_path / "index")
    (tmp_path / "index" / "index.faiss").write_bytes(b"cut")
    with pytest.raises(ValueError, match="must be a folder that rll index wrote"):
        Index(tmp_path / "index")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"an \.npz file or a folder of Parquet .*empty holds none"):
        build_index(tmp_path / "empty", tmp_path / "index 2")
    for name, value, rule in [
        ("embeddings", np.full([1200, DIM], np.nan), "embeddings of finite numbers"),
        ("paths", np.arange(1200), "a list of strings as paths"),
        ("class_names", np.array("class"), "a list of strings as class_names"),
    ]:
        np.savez(tmp_path / "other.npz", **{**arrays, name: value})
        with pytest.raises(ValueError, match=f"must hold {rule}"):
            build_index(tmp_path / "other.npz", tmp_path / "index 2")
    shorter = pa.parquet.read_table(folder / "embeddings-1.parquet")
    half = pa.FixedSizeListArray.from_arrays(np.zeros(len(shorter) * DIM // 2, np.float32), DIM // 2)
    (tmp_path / "two").mkdir()
    pa.parquet.write_table(shorter, tmp_path / "two" / "0.parquet")
    pa.parquet.write_table(shorter.set_column(0, "embedding", half), tmp_path / "two" / "1.parquet")
    with pytest.raises(ValueError, match="embeddings of one model; dimension is 16, 8"):
        build_index(tmp_path / "two", tmp_path / "index 2")
    table = pa.table({"embedding": [[1.0]], "path": ["a"]})
    (tmp_path / "other").mkdir()
    pa.parquet.write_table(table, tmp_path / "other" / "x.parquet")
    with pytest.raises(ValueError, match=r"must have the columns .*; label, level, .* is missing"):
        parquet.read_folder(tmp_path / "other")


def test_names_that_are_not_utf_8_are_kept_as_they_are_shown(arrays, tmp_path):
    """As in Parquet files: Python's stand-in for a byte becomes its escape."""
    np.savez(tmp_path / "x.npz", **{**arrays, "paths": np.array(["na\udcefve.png"] * 1200)})
    build_index(tmp_path / "x.npz", tmp_path / "index")
    assert Index(tmp_path / "index").search(arrays["embeddings"][:1], 1)[2] == "na\\xefve.png"


def test_metadata_is_json(file, tmp_path):
    """Which model embedded is in it, for search to compare."""
    build_index(file, tmp_path / "index")
    metadata = json.loads((tmp_path / "index" / "index.json").read_text("utf-8"))
    assert (metadata["level"], metadata["version"], metadata["weights_sha256"]) == ("low", 3, "ab")
