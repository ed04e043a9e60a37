"""What the readers share."""

import os

import numpy as np
import pytest

from rll_tf.data.catalogue import Catalogue
from rll_tf.data.layout import Counts, absent_files, check, find_tree, number, rows


def test_a_list_with_too_few_columns_is_refused(tmp_path):
    """The line is named; the last column may hold spaces."""
    file = tmp_path / "list.txt"
    file.write_text("1 a b.jpg  \n\n2\n")
    with pytest.raises(ValueError, match=r"list\.txt line 3 must have 2 columns; got '2'"):
        list(rows(file, 2))
    file.write_text("heading\n1 a b.jpg \n")
    assert list(rows(file, 2, skip=1)) == [["1", "a b.jpg"]]


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path):
    """And its lines may end as on Windows; bytes that are not UTF-8 pass."""
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf1 caf\xe9.jpg\r\n2 b.jpg\r\n")
    assert list(rows(tmp_path / "list.txt", 2)) == [["1", os.fsdecode(b"caf\xe9.jpg")], ["2", "b.jpg"]]


def test_what_is_no_number_is_refused(tmp_path):
    """The file and the text are named."""
    assert number(tmp_path, "12") == 12
    with pytest.raises(ValueError, match="must hold whole numbers here; got 'x'"):
        number(tmp_path, "x")


def test_a_tree_is_found_at_the_path_or_below(tmp_path):
    """Where neither holds the file, both folders are named."""
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "a.txt").touch()
    assert find_tree("x", tmp_path, ["top"], "a.txt") == tmp_path / "top"
    assert find_tree("x", tmp_path / "top", ["top"], "a.txt") == tmp_path / "top"
    with pytest.raises(FileNotFoundError, match=r"x needs the file b\.txt; looked in .*, .*top"):
        find_tree("x", tmp_path, ["top"], "b.txt")


def test_absent_files_are_found_by_listing(tmp_path):
    """Files and links to files are there; links to nowhere, directories, missing directories are not."""
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "directory").mkdir()
    names = ["a", "link", "dangling", "directory", "b", "no/c", "a/c"]
    paths = [str(tmp_path / name) for name in names]
    assert absent_files(paths) == paths[2:]


def test_a_directory_that_can_not_be_read_is_not_taken_for_a_missing_one(tmp_path, monkeypatch):
    """The error names it."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        absent_files([str(tmp_path / "a")])


def test_a_file_that_is_listed_twice_is_refused(tmp_path):
    """The counts agree, but another picture is left out."""
    (tmp_path / "a").touch()
    paths = (str(tmp_path / "a"),) * 3
    catalogue = Catalogue("x", paths, np.zeros(3, np.int64), ("one",), {"train": np.arange(3)})
    with pytest.raises(ValueError, match=r"expected 3 different picture files; the lists in .* name 1, the"):
        check("x", catalogue, {"train": Counts(1, 3)}, tmp_path)
