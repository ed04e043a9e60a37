"""A user's own folder."""

import os
import stat
from pathlib import Path

import pytest

from rll_tf.data import CorruptPictureError, Preprocessing, load_pictures, open_dataset, printable
from tests.data.test_images import encoded, picture


def touch(*files):
    """Make empty files and their directories."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_a_class_is_every_directory_that_holds_pictures(tmp_path):
    """Classes are named by relative path and sorted; hidden ones are passed over, others counted."""
    touch(
        tmp_path / "b" / "2.JPG",
        tmp_path / "b" / "1.png",
        tmp_path / "b" / "notes.txt",
        tmp_path / "b" / ".hidden.png",
        tmp_path / "a" / "deep" / "x.jpeg",
        tmp_path / "a" / "y.bmp",
        tmp_path / ".cache" / "z.png",
        tmp_path / "empty" / "README",
        tmp_path / "empty" / "Notes.TXT",
    )
    with pytest.warns(UserWarning, match=r"3 files of other kinds left out, by suffix: 2 \.txt, 1 without"):
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


def test_a_missing_folder_and_one_without_pictures_have_their_own_errors(tmp_path):
    """Each names the folder."""
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        open_dataset(f"folder:{tmp_path}/nowhere")
    touch(tmp_path / "file.png")
    with pytest.raises(FileNotFoundError, match=r"file\.png is not a directory"):
        open_dataset(f"folder:{tmp_path}/file.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no pictures; expected one directory per class"):
        open_dataset(f"folder:{tmp_path}/empty")
    touch(tmp_path / "scans" / "1.tif")
    with pytest.raises(ValueError, match=r"found other files, by suffix: 1 \.tif"):
        open_dataset(f"folder:{tmp_path}/scans")


def test_names_that_are_not_utf8_are_read_and_shown(tmp_path):
    """The path opens the file; the class's name can be printed and written as JSON."""
    directory = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(directory)
    with open(directory + b"/\xff.png", "wb") as file:
        file.write(encoded(picture(5, 7)))
    catalogue = open_dataset(f"folder:{tmp_path}")
    assert catalogue.class_names == (r"caf\xe9",)
    assert printable(catalogue.paths[0]).endswith(r"caf\xe9/\xff.png")
    assert load_pictures(catalogue, Preprocessing(4, 4)).shape == (1, 4, 4, 3)
    Path(catalogue.paths[0]).write_bytes(b"no picture")
    with pytest.raises(CorruptPictureError, match=r"\\xff\.png is not a whole picture"):
        load_pictures(catalogue, Preprocessing(4, 4))


def test_names_that_print_alike_are_two_classes(tmp_path):
    r"""The byte 0xE9, and a backslash followed by xe9."""
    for directory in (b"caf\xe9", rb"caf\xe9"):
        os.mkdir(os.fsencode(tmp_path) + b"/" + directory)
        with open(os.fsencode(tmp_path) + b"/" + directory + b"/1.png", "wb"):
            pass
    catalogue = open_dataset(f"folder:{tmp_path}")
    assert catalogue.class_names == (r"caf\xe9", r"caf\xe9")
    assert catalogue.labels.tolist() == [0, 1]


def test_only_files_are_pictures(tmp_path):
    """A link to a file is one; a pipe, a socket, a link to a device or a directory is none."""
    touch(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "2.png").symlink_to("1.png")
    os.mkfifo(tmp_path / "a" / "3.png")
    (tmp_path / "a" / "4.png").symlink_to("/dev/zero")
    (tmp_path / "a" / "5.png").symlink_to("3.png")
    os.mknod(tmp_path / "a" / "6.png", stat.S_IFSOCK | 0o600)
    (tmp_path / "a" / "7.png").mkdir()
    catalogue = open_dataset(f"folder:{tmp_path}")
    assert [Path(path).name for path in catalogue.paths] == ["1.png", "2.png"]


def test_links_are_read_in_the_order_of_their_names(tmp_path):
    """Of two ways to a directory the first in sorted order names the class, depth first."""
    touch(tmp_path / "b" / "c" / "1.png")
    (tmp_path / "a").symlink_to("b/c")
    (tmp_path / "d").symlink_to("b")
    assert open_dataset(f"folder:{tmp_path}").class_names == ("a",)


def test_an_unreadable_directory_is_named(tmp_path, monkeypatch):
    """It is not passed over in silence: its classes would be missing."""
    touch(tmp_path / "a" / "1.png", tmp_path / "b" / "1.png")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*/b'"):
        open_dataset(f"folder:{tmp_path}")


def test_a_link_to_nowhere_is_a_picture_and_one_to_itself_is_none(tmp_path):
    """A dangling picture is listed and named when it is read; a directory that links to itself is none."""
    touch(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "2.png").symlink_to("gone.png")
    (tmp_path / "loop").symlink_to("loop")
    catalogue = open_dataset(f"folder:{tmp_path}")
    assert catalogue.class_names == ("a",)
    (tmp_path / "a" / "1.png").write_bytes(encoded(picture(5, 7)))
    with pytest.raises(CorruptPictureError, match=r"2\.png can't be read \(No such file or directory\)"):
        load_pictures(catalogue, Preprocessing(4, 4))
