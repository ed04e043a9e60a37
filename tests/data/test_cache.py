"""Resized pictures on disk."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rll_tf.data import PictureCache, Preprocessing
from rll_tf.data import cache as module
from rll_tf.data.decode import decode
from tests.conftest import ROOT, write_pictures

PREPROCESSING = Preprocessing(12, 16)


@pytest.fixture
def paths(tmp_path):
    """Six pictures."""
    return sorted(str(path) for path in write_pictures(tmp_path / "pictures", 3, 2).rglob("*.png"))


def read(file):
    """A cached picture."""
    return np.frombuffer(Path(file).read_bytes(), np.uint8).reshape(16, 16, 3)


def test_each_entry_is_the_fitted_picture(paths, tmp_path):
    """Of its own file, in the order given."""
    for path, file in zip(paths, PictureCache(tmp_path / "cache").keep(paths, PREPROCESSING), strict=True):
        np.testing.assert_array_equal(read(file), PREPROCESSING.fit(decode(Path(path).read_bytes())))


def test_content_is_the_key(paths, tmp_path):
    """Copies share an entry, a changed file and another size get others, nothing is written twice."""
    cache = PictureCache(tmp_path / "cache")
    files = cache.keep(paths, PREPROCESSING)
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(paths[0]).read_bytes())
    assert cache.keep([str(copy)], PREPROCESSING) == files[:1]
    copy.write_bytes(Path(paths[1]).read_bytes() + b"more")
    changed = cache.keep([str(copy)], PREPROCESSING)
    assert changed[0] not in files
    np.testing.assert_array_equal(read(changed[0]), read(files[1]))
    assert not set(cache.keep(paths, Preprocessing(12, 20))) & set(files)
    written = Path(files[0]).stat().st_mtime_ns
    assert cache.keep(paths, PREPROCESSING) == files
    assert Path(files[0]).stat().st_mtime_ns == written


def test_a_broken_entry_is_written_anew(paths, tmp_path):
    """Such as a full disk may leave; temporary files are not taken for entries."""
    cache = PictureCache(tmp_path / "cache")
    files = cache.keep(paths, PREPROCESSING)
    whole = Path(files[2]).read_bytes()
    Path(files[2]).write_bytes(whole[:100])
    assert cache.keep(paths, PREPROCESSING) == files
    assert Path(files[2]).read_bytes() == whole


def test_a_failure_while_writing_leaves_nothing(paths, tmp_path, monkeypatch):
    """Neither an entry nor a temporary file."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        PictureCache(tmp_path / "cache").keep(paths, PREPROCESSING)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_a_process_killed_while_it_writes_leaves_only_whole_entries(tmp_path):
    """Kill -9 in the middle; the next process completes what is missing."""
    paths = sorted(str(path) for path in write_pictures(tmp_path / "pictures", 40, 10).rglob("*.png"))
    folder = tmp_path / "cache"
    script = (
        "import sys, pathlib\n"
        "from rll_tf.data import PictureCache, Preprocessing\n"
        "PictureCache(pathlib.Path(sys.argv[1])).keep(sys.argv[2:], Preprocessing(12, 256))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, folder, *paths], cwd=ROOT, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while not list(folder.rglob("*.u8")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
    entries = list(folder.rglob("*.u8"))
    assert 0 < len(entries) < 400
    assert {entry.stat().st_size for entry in entries} == {256 * 256 * 3}
    files = PictureCache(folder).keep(paths, Preprocessing(12, 256))
    assert {Path(file).stat().st_size for file in files} == {256 * 256 * 3}
