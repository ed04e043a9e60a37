"""A user's own folder."""

import os

import pytest

from rll_tf.data import open_dataset


def touch(*files):
    """Make empty files and their directories."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_a_class_is_every_directory_that_holds_pictures(tmp_path):
    """Classes are named by relative path and sorted; other files and hidden ones are passed over."""
    touch(
        tmp_path / "b" / "2.JPG",
        tmp_path / "b" / "1.png",
        tmp_path / "b" / "notes.txt",
        tmp_path / "b" / ".hidden.png",
        tmp_path / "a" / "deep" / "x.jpeg",
        tmp_path / "a" / "y.bmp",
        tmp_path / ".cache" / "z.png",
        tmp_path / "empty" / "readme.md",
    )
    catalogue = open_dataset(f"folder:{tmp_path}")
    assert catalogue.class_names == ("a", "a/deep", "b")
    assert [os.path.relpath(path, tmp_path) for path in catalogue.paths] == [
        "a/y.bmp",
        "a/deep/x.jpeg",
        "b/1.png",
        "b/2.JPG",
    ]
    assert catalogue.labels.tolist() == [0, 1, 2, 2]
    assert catalogue.labels.dtype == "int64"
    assert catalogue.splits == {}


def test_a_loop_of_links_is_read_once(tmp_path):
    """A link to a parent directory ends, and adds nothing."""
    touch(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert open_dataset(f"folder:{tmp_path}").class_names == ("a",)


def test_a_missing_folder_and_one_without_pictures_are_told_apart(tmp_path):
    """Each names the folder."""
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        open_dataset(f"folder:{tmp_path}/nowhere")
    touch(tmp_path / "file.png")
    with pytest.raises(FileNotFoundError, match=r"file\.png is not a directory"):
        open_dataset(f"folder:{tmp_path}/file.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no pictures; expected one directory a class"):
        open_dataset(f"folder:{tmp_path}/empty")
