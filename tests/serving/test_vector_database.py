"""The way from Parquet files into a vector database, as docs/scale.md shows it."""

import re

import numpy as np
import pytest

from serving import parquet
from tests.conftest import ROOT

pa = pytest.importorskip("pyarrow")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of LanceDB's own
def test_lancedb_imports_the_files_and_finds_a_row_by_itself(tmp_path, monkeypatch, capsys):
    """Nearest first, with its path and label."""
    pytest.importorskip("lancedb")
    (block,) = re.findall(
        r"```python\n(import glob.*?)```", (ROOT / "docs/scale.md").read_text("utf-8"), re.DOTALL
    )
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=[40, 8]).astype(np.float32)
    (tmp_path / "embeddings").mkdir()
    for number, rows in enumerate(np.split(np.arange(40), 2)):
        columns = [
            pa.FixedSizeListArray.from_arrays(vectors[rows].ravel(), 8),
            [f"class {row % 4}" for row in rows],
            [f"{row}.jpg" for row in rows],
            ["concat"] * 20,
            [1] * 20,
            ["ab"] * 20,
        ]
        table = pa.table([pa.array(column) for column in columns], schema=parquet.schema(8))
        pa.parquet.write_table(table, tmp_path / "embeddings" / f"embeddings-{number}.parquet")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(block, scope)
    query = np.array(scope["query"], np.float32)
    order = np.argsort(((vectors - query) ** 2).sum(axis=1))[:5]
    found = scope["found"].to_pydict()
    assert found["path"] == [f"{row}.jpg" for row in order]
    assert found["label"] == [f"class {row % 4}" for row in order]
    assert found["_distance"][0] == pytest.approx(0, abs=1e-6)
    assert f"{order[0]}.jpg" in capsys.readouterr().out
