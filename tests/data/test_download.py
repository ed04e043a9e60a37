"""Fetching a file from a server that misbehaves."""

import hashlib

import numpy as np
import pytest

from rll_tf.data.download import DownloadError, RemoteFile, download
from tests.data.server import serving

CONTENT = np.random.default_rng(0).bytes(100_000)
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """This machine's own server is reached directly."""
    monkeypatch.setenv("no_proxy", "*")


def file_at(*urls):
    """The file that is meant."""
    return RemoteFile("file.bin", urls, MD5)


def test_a_file_arrives_whole_with_progress(tmp_path, capfd):
    """The last call of progress has everything; nothing partial is left; it is not fetched twice."""
    seen = []
    with serving({"/a": CONTENT}) as server:
        file = file_at(f"{server.url}/a")
        path = download(file, tmp_path / "new", lambda done, total: seen.append((done, total)))
        assert download(file, tmp_path / "new") == path
        assert server.ranges == [None]
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_download_is_resumed(tmp_path):
    """If a server closes after 30,000 bytes, the rest is requested, as often as it takes."""
    with serving({"/a": CONTENT}, "interrupts", 30_000) as server:
        assert download(file_at(f"{server.url}/a"), tmp_path).read_bytes() == CONTENT
        assert server.ranges == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


@pytest.mark.parametrize("size", [40_000, len(CONTENT)])
def test_a_part_of_an_earlier_time_is_resumed(tmp_path, size):
    """Also a part that is whole already, for which the server's status is 416."""
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:size])
    with serving({"/a": CONTENT}) as server:
        assert download(file_at(f"{server.url}/a"), tmp_path).read_bytes() == CONTENT
        assert server.ranges == [f"bytes={size}-"]


def test_a_server_without_ranges_begins_again(tmp_path):
    """What it sends replaces the part."""
    (tmp_path / "file.bin.part").write_bytes(b"x" * 40_000)
    with serving({"/a": CONTENT}, "no ranges") as server:
        assert download(file_at(f"{server.url}/a"), tmp_path).read_bytes() == CONTENT
        assert len(server.ranges) == 1


def test_a_wrong_part_is_thrown_away(tmp_path):
    """The checksum of the resumed file is wrong, so it is fetched from the start."""
    (tmp_path / "file.bin.part").write_bytes(b"x" * 40_000)
    with serving({"/a": CONTENT}) as server:
        assert download(file_at(f"{server.url}/a"), tmp_path).read_bytes() == CONTENT
        assert server.ranges == ["bytes=40000-", None]


def test_a_server_that_gives_nothing_more_is_left(tmp_path):
    """It is not tried for ever; the next address goes on with what arrived."""
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:40_000])
    with serving({"/a": CONTENT}, "interrupts", 0) as silent, serving({"/a": CONTENT}) as server:
        with pytest.raises(DownloadError, match="60000 more expected"):
            download(file_at(f"{silent.url}/a"), tmp_path)
        download(file_at(f"{silent.url}/a", f"{server.url}/a"), tmp_path)
        assert silent.ranges == server.ranges * 2 == ["bytes=40000-"] * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><title>Warning: large file</title>", "gives a web page instead of the file"),
        (CONTENT[:-1], f"hash.*does not match.*{MD5}"),
    ],
)
def test_another_file_than_the_one_meant_is_refused(tmp_path, content, message):
    """A warning page, another content: nothing stays that would be taken for the file."""
    with serving({"/a": content}) as server, pytest.raises(DownloadError, match=message):
        download(file_at(f"{server.url}/a"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_next_address_is_tried(tmp_path):
    """Each that failed has its reason if none succeeds."""
    with serving({"/a": CONTENT}) as server:
        urls = [f"{server.url}/gone", "http://127.0.0.1:1/a", "ftp://127.0.0.1/a", f"{server.url}/a"]
        assert download(file_at(*urls), tmp_path).read_bytes() == CONTENT
        (tmp_path / "file.bin").unlink()
        with pytest.raises(
            DownloadError, match=r"gone: HTTP status 404; http.*refused; ftp.*: .*Connection refused$"
        ):
            download(file_at(*urls[:3]), tmp_path)
    with pytest.raises(DownloadError, match="no address is known"):
        download(file_at(), tmp_path)


def test_a_full_disk_is_not_the_networks_fault(tmp_path):
    """No other address is tried."""
    (tmp_path / "file.bin.part").symlink_to("/dev/full")
    with serving({"/a": CONTENT}) as server:
        with pytest.raises(OSError, match="No space left on device") as caught:
            download(file_at(f"{server.url}/a", f"{server.url}/a"), tmp_path)
        assert len(server.ranges) == 1
    assert not isinstance(caught.value, DownloadError)


def test_a_damaged_file_that_was_there_is_fetched_again(tmp_path):
    """Its checksum is verified first."""
    (tmp_path / "file.bin").write_bytes(b"damaged")
    with serving({"/a": CONTENT}) as server:
        assert download(file_at(f"{server.url}/a"), tmp_path).read_bytes() == CONTENT
