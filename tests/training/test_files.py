"""Files that are whole at any time."""

import os

import pytest

from rll_tf.training.files import append_line, read_json, read_lines, replacing, write_json


def test_a_file_keeps_its_content_when_writing_fails(tmp_path):
    """The error passes, the old content stays, nothing partial is left."""
    file = tmp_path / "state.json"
    write_json(file, {"a": 1})

    def fail():
        with replacing(file) as partial:
            partial.write_text("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        fail()
    assert read_json(file) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_leaves_the_old_content(tmp_path):
    """Writing to a device without space."""
    file = tmp_path / "state.json"
    write_json(file, [1])
    (tmp_path / "partial-state.json").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*state\.json'"):
        write_json(file, [2])
    assert read_json(file) == [1]


def test_a_path_that_is_not_utf8_comes_back(tmp_path):
    """The file itself is UTF-8; other characters stand in it as they are."""
    path = os.fsdecode(b"/\xc3\xa9/caf\xe9")
    write_json(tmp_path / "x.json", path)
    assert read_json(tmp_path / "x.json") == path
    assert (tmp_path / "x.json").read_bytes() == b'"/\xc3\xa9/caf\\udce9"\n'


def test_lines_come_back_in_order_without_a_last_one_cut_short(tmp_path):
    """A missing file has no lines; a broken line in the middle is an error that names it."""
    file = tmp_path / "rows.jsonl"
    assert read_lines(file) == []
    append_line(file, {"step": 1})
    append_line(file, {"step": 2})
    with file.open("a") as stream:
        stream.write('{"step": 3, "lo')
    assert read_lines(file) == [{"step": 1}, {"step": 2}]
    with file.open("a") as stream:
        stream.write('\n{"step": 4}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl line 3 is not JSON"):
        read_lines(file)


def test_what_is_not_json_is_named(tmp_path):
    """The message says which file."""
    file = tmp_path / "config.json"
    file.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not a JSON file"):
        read_json(file)
