"""The scripts and notebooks of examples/ run."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

LINES = 60
# They run as they stand, but for the number of steps and, at the end, what they print.
SCRIPTS = {
    "compare_losses.py": ("steps_per_epoch=200", "steps_per_epoch=2", "ranked list: Recall@1 on letters"),
    "fine_tune.py": ("steps_per_epoch=25, epochs=2", "steps_per_epoch=1, epochs=1", "Recall@1 on classes"),
    "multi_worker.py": ("steps=150", "steps=2", "Recall@1 on validation classes"),
    "own_model.py": (
        "epochs=30, steps_per_epoch=50",
        "epochs=2, steps_per_epoch=2",
        "Recall@1 on letters never seen: 0.",
    ),
    "serve_and_search.py": ("steps_per_epoch=200", "steps_per_epoch=2", "embeddings: (8, 32)"),
}
NOTEBOOKS = {
    "letters.ipynb": ("steps_per_epoch=40, epochs=5", "steps_per_epoch=1, epochs=1", "Recall@1: ["),
    "ranked_list_loss.ipynb": ("range(60)", "range(60)", "still mined: 0 positives, 0 negatives"),
}


def notebook_code(file):
    """The code cells, one after the other."""
    cells = json.loads(file.read_text("utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_every_example_is_known():
    """None is left out below, and a script is short enough to be read."""
    examples = {file.name for file in (ROOT / "examples").glob("*.*")}
    assert examples == {*SCRIPTS, *NOTEBOOKS}
    for name in SCRIPTS:
        assert len((ROOT / "examples" / name).read_text("utf-8").splitlines()) < LINES, name


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SCRIPTS, *NOTEBOOKS])
def test_it_runs(name, tmp_path):
    """In few steps, with the output that its reader looks for."""
    file = ROOT / "examples" / name
    code = notebook_code(file) if file.suffix == ".ipynb" else file.read_text("utf-8")
    many, few, expected = (SCRIPTS | NOTEBOOKS)[name]
    assert many in code
    shorter = tmp_path / "example.py"
    shorter.write_text(code.replace(many, few), "utf-8")
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, shorter]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert expected in ended.stdout
