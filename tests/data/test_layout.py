"""What the readers share."""

import pytest

from rll_tf.data.layout import absent_files, find_tree, number, rows


def test_a_list_with_too_few_columns_is_refused(tmp_path):
    """The line is named; the last column may hold spaces."""
    file = tmp_path / "list.txt"
    file.write_text("1 a b.jpg  \n\n2\n")
    with pytest.raises(ValueError, match=r"list\.txt line 3 must have 2 columns; got '2'"):
        list(rows(file, 2))
    file.write_text("heading\n1 a b.jpg \n")
    assert list(rows(file, 2, skip=1)) == [["1", "a b.jpg"]]


def test_what_is_no_number_is_refused(tmp_path):
    """The file and the text are named."""
    assert number(tmp_path, "12") == 12
    with pytest.raises(ValueError, match="must hold whole numbers here; got 'x'"):
        number(tmp_path, "x")


def test_a_tree_is_found_at_the_path_or_below(tmp_path):
    """Where neither holds the file, both places are named."""
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "a.txt").touch()
    assert find_tree("x", tmp_path, ["top"], "a.txt") == tmp_path / "top"
    assert find_tree("x", tmp_path / "top", ["top"], "a.txt") == tmp_path / "top"
    with pytest.raises(FileNotFoundError, match=r"x needs the file b\.txt; looked in .*, .*top"):
        find_tree("x", tmp_path, ["top"], "b.txt")


def test_absent_files_are_found_by_listing(tmp_path):
    """Of directories that are there and of one that is not."""
    (tmp_path / "a").touch()
    paths = [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "no" / "c")]
    assert absent_files(paths) == paths[1:]
