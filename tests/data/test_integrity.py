"""Corrupt pictures and copies."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from rll_tf.data import duplicates, open_dataset, report_duplicates, skip_corrupt
from tests.conftest import write_pictures


@pytest.fixture
def folder(tmp_path):
    """Four classes of three pictures."""
    return write_pictures(tmp_path, 4, 3)


def test_corrupt_pictures_are_left_out_and_named(folder):
    """Truncated, empty, foreign, vanished: the others keep labels, order and splits."""
    catalogue = open_dataset(f"folder:{folder}")
    catalogue = dataclasses.replace(catalogue, splits={"train": np.arange(6), "test": np.arange(6, 12)})
    for index, content in [(1, Path(catalogue.paths[1]).read_bytes()[:60]), (4, b""), (8, b"text")]:
        Path(catalogue.paths[index]).write_bytes(content)
    Path(catalogue.paths[9]).unlink()
    kept, skipped = skip_corrupt(catalogue)
    assert kept.paths == tuple(path for i, path in enumerate(catalogue.paths) if i not in (1, 4, 8, 9))
    assert kept.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert {name: list(indices) for name, indices in kept.splits.items()} == {
        "train": [0, 1, 2, 3], "test": [4, 5, 6, 7]
    }  # fmt: skip
    assert len(skipped.reasons) == 4
    assert "class 0/1.png is not a whole picture" in skipped.reasons[0]
    assert "class 3/0.png can't be read (No such file or directory)" in skipped.reasons[3]
    assert skipped.report()[0] == "skipped 4 pictures:"
    assert skipped.classes == ()


def test_a_class_that_vanished_is_named(folder):
    """Between listing and reading; the other classes stay."""
    catalogue = open_dataset(f"folder:{folder}")
    for file in (folder / "class 2").iterdir():
        file.unlink()
    kept, skipped = skip_corrupt(catalogue)
    assert set(kept.labels) == {0, 1, 3}
    assert skipped.classes == ("class 2",)
    assert skipped.report()[-1] == "no picture is left of 1 class: class 2"


def test_where_nothing_is_wrong_nothing_changes(folder):
    """The catalogue is the same one; so is one in memory."""
    for catalogue in (open_dataset(f"folder:{folder}"), open_dataset("digits")):
        kept, skipped = skip_corrupt(catalogue)
        assert kept is catalogue
        assert skipped.report() == ["no picture was skipped"]


def test_copies_are_found_by_content(folder):
    """Within a class and between classes; links count as copies, files of equal size alone do not."""
    catalogue = open_dataset(f"folder:{folder}")
    assert report_duplicates(catalogue) == []
    first, second, other = (Path(catalogue.paths[index]) for index in (0, 1, 5))
    second.write_bytes(first.read_bytes())
    other.unlink()
    other.symlink_to(first)
    same_size = Path(catalogue.paths[7])
    same_size.write_bytes(first.read_bytes()[:-1] + b"!")
    Path(catalogue.paths[8]).unlink()
    assert duplicates(catalogue) == [[0, 1, 5]]
    lines = report_duplicates(catalogue)
    assert lines[0] == f"2 picture files are copies of another, such as {first} = {second}"
    assert lines[1].startswith("1 of them lies in several classes")
    assert duplicates(open_dataset("digits")) == []
