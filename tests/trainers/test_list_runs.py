"""`rll runs`."""

import json
import shutil

import pytest

from tests.conftest import rll
from trainers import cli


@pytest.fixture
def runs(run_folder, tmp_path):
    """A run; one with another loss, not finished; one with the same of another version, damaged."""
    for name in ("a", "deep/b", "c"):
        shutil.copytree(run_folder, tmp_path / name, ignore=shutil.ignore_patterns("*.keras"))
    change(tmp_path / "deep/b", loss="lifted_struct", margin=0.7, loss_parameters={"margin": 0.9})
    (tmp_path / "deep/b/metrics.json").unlink()
    for name, lines in (("steps", 5), ("epochs", 2)):
        file = tmp_path / f"deep/b/{name}.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:lines]))
    change(tmp_path / "c", colour=1)
    return tmp_path


def change(folder, **settings):
    """Other settings."""
    config = json.loads((folder / "config.json").read_text())
    config["settings"].update(settings)
    (folder / "config.json").write_text(json.dumps(config))


def best(folder):
    """The best line of the validations."""
    rows = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    return max(rows, key=lambda row: row["validation"]["concat"]["map@r"])


def test_runs_stand_side_by_side_with_what_differs(runs, capfd):
    """Where each is, its best validation in percent, and the differing settings alone."""
    rll("runs", runs)
    heading, *rows, differ, damaged = capfd.readouterr().out.splitlines()
    assert heading.split() == ["RUN", "step", "best", "MAP@R", "R@1", "loss", "margin", "loss.margin"]
    for row, name, steps, settings in [
        (rows[0], "a", "6", ["ranked_list", "0.8", "-"]),
        (rows[1], "deep/b", "5/6", ["lifted_struct", "0.7", "0.9"]),
    ]:
        found = best(runs / name)
        metrics = [f"{100 * found['validation']['concat'][key]:.1f}" for key in ("map@r", "recall@1")]
        assert row.split() == [name, steps, str(found["step"]), *metrics, *settings]
    assert differ.startswith("2 runs: recipe convnet; data folder:")
    assert differ.endswith("; they differ in loss, margin, loss.margin")
    assert "c/config.json holds other settings than this version" in damaged


def test_many_differences_are_rows(runs, monkeypatch, capfd):
    """Where columns don't fit the terminal; other classes of validation are said."""
    config = json.loads((runs / "deep/b/config.json").read_text())
    config["classes"]["validation"].pop()
    (runs / "deep/b/config.json").write_text(json.dumps(config))
    monkeypatch.setenv("COLUMNS", "40")
    rll("runs", runs)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["RUN", "a", "deep/b"]
    assert lines[5].split() == ["loss", "ranked_list", "lifted_struct"]
    assert "not all are validated on the same classes: their MAP@R and R@1 are not comparable" in lines


def test_a_folder_without_runs_is_one_line(tmp_path, capfd):
    """It is named."""
    assert cli.run(["runs", str(tmp_path)]) == 1
    assert capfd.readouterr().err == f"rll: {tmp_path} holds no runs\n"
