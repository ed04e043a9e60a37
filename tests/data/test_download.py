"""Fetching a file from a server that misbehaves."""

import hashlib
import http.client
import ssl
import types
import urllib.request

import numpy as np
import pytest

from rll_tf.data.download import DownloadError, RemoteFile, download
from tests.data.server import serving

CONTENT = np.random.default_rng(0).bytes(100_000)
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """This machine's own server is asked directly."""
    monkeypatch.setenv("no_proxy", "*")


def file_at(*urls, **fields):
    """The file that is meant."""
    return RemoteFile("file.bin", urls, **{"md5": MD5, "size_bytes": len(CONTENT), **fields})


def test_a_file_arrives_whole_with_progress(tmp_path):
    """The last call of progress has everything; nothing partial is left; it is not fetched twice."""
    seen = []
    with serving({"/a": CONTENT}) as server:
        file = file_at(f"{server.url}/a")
        path = download(file, tmp_path / "new", lambda done, total: seen.append((done, total)))
        assert download(file, tmp_path / "new") == path
        assert server.asked == [None]
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


def test_what_broke_off_is_continued(tmp_path):
    """A server that closes after 30,000 bytes is asked for the rest, as often as it takes."""
    with serving({"/a": CONTENT}, "breaks off", 30_000) as server:
        assert download(file_at(f"{server.url}/a"), tmp_path).read_bytes() == CONTENT
        assert server.asked == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


def test_a_part_of_an_earlier_time_is_continued(tmp_path):
    """Also a part that is whole already, which the server answers with status 416."""
    for size in (40_000, len(CONTENT)):
        (tmp_path / "file.bin.part").write_bytes(CONTENT[:size])
        with serving({"/a": CONTENT}) as server:
            assert download(file_at(f"{server.url}/a"), tmp_path).read_bytes() == CONTENT
            assert server.asked == [f"bytes={size}-"]
        (tmp_path / "file.bin").unlink()


def test_a_server_without_ranges_begins_anew(tmp_path):
    """What it sends replaces the part."""
    (tmp_path / "file.bin.part").write_bytes(b"x" * 40_000)
    with serving({"/a": CONTENT}, "no ranges") as server:
        assert download(file_at(f"{server.url}/a"), tmp_path).read_bytes() == CONTENT


def test_a_wrong_part_is_thrown_away(tmp_path):
    """The checksum of the continued file is wrong, so it is fetched from the start."""
    (tmp_path / "file.bin.part").write_bytes(b"x" * 40_000)
    with serving({"/a": CONTENT}) as server:
        assert download(file_at(f"{server.url}/a"), tmp_path).read_bytes() == CONTENT
        assert server.asked == ["bytes=40000-", None]


def test_a_server_that_gives_nothing_more_is_left(tmp_path):
    """It is not asked for ever; what arrived is kept."""
    with (
        serving({"/a": CONTENT}, "breaks off", 0) as server,
        pytest.raises(DownloadError, match="broke off after 0 bytes"),
    ):
        download(file_at(f"{server.url}/a"), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n <!DOCTYPE html><title>Warning: large file</title>", "answers with a web page"),
        (CONTENT[:-1], "expected 100,000 bytes; the address offers 99,999"),
        (CONTENT[:-1] + b"!", f"expected the MD5 checksum {MD5}; got "),
    ],
)
def test_another_file_than_the_one_meant_is_refused(tmp_path, content, message):
    """A warning page, another size, another content: nothing stays that would be taken for the file."""
    size = None if content.startswith(b"\n") else len(CONTENT)
    with (
        serving({"/a": content}) as server,
        pytest.raises(DownloadError, match=message),
    ):
        download(file_at(f"{server.url}/a", size_bytes=size), tmp_path)
    assert not (tmp_path / "file.bin").exists()


def test_the_next_address_is_tried(tmp_path):
    """Each that failed has its reason if none succeeds."""
    with serving({"/a": CONTENT}) as server:
        urls = [f"{server.url}/gone", "http://127.0.0.1:1/refused", "nonsense", f"{server.url}/a"]
        assert download(file_at(*urls), tmp_path).read_bytes() == CONTENT
        (tmp_path / "file.bin").unlink()
        with pytest.raises(
            DownloadError, match=r"gone: HTTP status 404; .*refused.*refused; nonsense: unknown url"
        ):
            download(file_at(*urls[:3]), tmp_path)
    with pytest.raises(DownloadError, match="no address is known"):
        download(file_at(), tmp_path)


class Answer:
    """An address that gives half the file and then fails."""

    status = 200
    headers = types.MappingProxyType({"Content-Length": str(len(CONTENT))})

    def __init__(self, error):
        self.rest = [CONTENT[:50_000]]
        self.error = error

    def __enter__(self):
        """Itself, as urllib's answers are."""
        return self

    def __exit__(self, *_):
        """Let errors pass."""

    def read(self, _):
        """Half, then the error."""
        if self.rest:
            return self.rest.pop()
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLError(1, "record layer failure"),
        OSError(113, "No route to host"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError("timed out"),
        http.client.IncompleteRead(b"", 7),
    ],
)
def test_a_connection_that_breaks_leads_to_the_next_address(tmp_path, monkeypatch, error):
    """However it breaks; the reason is told where no address is left."""
    ask = urllib.request.urlopen

    def answer(request, timeout):
        return Answer(error) if "broken" in request.full_url else ask(request, timeout=timeout)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    with serving({"/a": CONTENT}) as server:
        broken = "http://broken/a"
        path = download(file_at(broken, f"{server.url}/a"), tmp_path)
        assert path.read_bytes() == CONTENT
        path.unlink()
        with pytest.raises(DownloadError) as caught:
            download(file_at(broken, broken), tmp_path)
    assert str(caught.value).count(f"broke off after 50,000 bytes: {error}") == 2


def test_a_full_disk_is_not_the_networks_fault(tmp_path):
    """No other address is asked, and the file that can't be written is named."""
    (tmp_path / "file.bin.part").symlink_to("/dev/full")
    with serving({"/a": CONTENT}) as server:
        with pytest.raises(OSError, match=r"No space left on device: '.*file\.bin\.part'") as caught:
            download(file_at(f"{server.url}/a", f"{server.url}/a"), tmp_path)
        assert len(server.asked) == 1
    assert not isinstance(caught.value, DownloadError)


def test_a_damaged_file_that_was_there_is_fetched_again(tmp_path):
    """Its checksum is asked first."""
    (tmp_path / "file.bin").write_bytes(b"damaged")
    with serving({"/a": CONTENT}) as server:
        assert download(file_at(f"{server.url}/a"), tmp_path).read_bytes() == CONTENT
