"""Fetching a benchmark into its folder."""

import io
import tarfile
import zipfile

import pytest

from rll_tf.data.cars196 import cars196
from rll_tf.data.cub200 import cub200
from rll_tf.data.download import DownloadError, RemoteFile
from rll_tf.data.fetch import SOURCES, Source, fetch
from rll_tf.data.inshop import inshop
from rll_tf.data.layout import Counts
from rll_tf.data.sop import sop
from tests.data.server import serving
from tests.data.trees import write_cars196, write_cub200, write_inshop, write_sop


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """This machine's own server is reached directly."""
    monkeypatch.setenv("no_proxy", "*")


def tar(**files):
    """A .tgz with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zipped(**files):
    """A .zip with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def fetch_from(server, folder, *names, progress=None):
    """Fetch these files of a server."""
    files = tuple(RemoteFile(name, (f"{server.url}/{name}",)) for name in names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SOURCES, "x", Source(files, "put the files into {folder}/here"))
        fetch("x", folder, progress)


def test_archives_are_unpacked_into_the_folder(tmp_path):
    """Tar, zip and a plain file; the archives are gone, and earlier content of the same name is replaced."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "old.jpg").touch()
    content = {
        "/a.tgz": tar(pictures__1=b"one"),
        "/b.zip": zipped(more__2=b"two"),
        "/c.mat": b"labels",
    }
    seen = []
    with serving(content) as server:
        files = "a.tgz", "b.zip", "c.mat"
        fetch_from(server, tmp_path, *files, progress=lambda file: lambda *_: seen.append(file.name))
    files = {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert files == {"pictures/1": b"one", "more/2": b"two", "c.mat": b"labels"}
    assert set(seen) == {"a.tgz", "b.zip", "c.mat"}


def test_a_failure_says_what_to_put_where(tmp_path):
    """Offline, and where an archive is none; the archives that arrived are kept for the next time."""
    with serving({"/a.tgz": tar(a=b"1"), "/b.tgz": b"no archive"}) as server:
        with pytest.raises(
            DownloadError, match=rf"c\.tgz can't be fetched .*404.* the files into {tmp_path}/here"
        ):
            fetch_from(server, tmp_path, "a.tgz", "c.tgz")
        assert (tmp_path / ".downloads" / "a.tgz").exists()
        with pytest.raises(DownloadError, match=r"b\.tgz can't be unpacked \(.*By hand: put the files"):
            fetch_from(server, tmp_path, "b.tgz")
    assert not (tmp_path / ".downloads" / "b.tgz").exists()


def test_a_damaged_archive_says_what_to_do(tmp_path):
    """Some bytes lost or the end missing, under no checksum."""
    whole = tar(a=str(list(range(20_000))).encode())
    zeros = whole[:1000] + bytes(100) + whole[1100:]
    for content in (zeros, whole[:20_000]):
        with serving({"/a.tgz": content}) as server, pytest.raises(DownloadError, match="By hand: put the"):
            fetch_from(server, tmp_path, "a.tgz")
        assert not list((tmp_path / ".downloads").iterdir())


def test_a_python_that_can_not_unpack_safely_says_so(tmp_path, monkeypatch):
    """Before anything is fetched."""
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(
        DownloadError, match=r"must be 3\.10\.12, 3\.11\.4 or newer; this is 3\..*By hand: get"
    ):
        fetch("sop", tmp_path)


def test_an_archive_can_not_write_elsewhere(tmp_path):
    """A path that leads outside is refused."""
    folder = tmp_path / "folder"
    with (
        serving({"/a.tgz": tar(**{"..__evil": b"1"})}) as server,
        pytest.raises(DownloadError, match="can't be unpacked"),
    ):
        fetch_from(server, folder, "a.tgz")
    assert not (tmp_path / "evil").exists()


def test_what_is_given_out_by_hand_only_says_so(tmp_path):
    """In-shop has no address; an unknown name lists the known."""
    with pytest.raises(
        DownloadError, match=rf"by hand only.*{tmp_path}/Eval and unpack img\.zip in {tmp_path}"
    ):
        fetch("inshop", tmp_path)
    with pytest.raises(
        ValueError, match="only cub200, cars196, sop, inshop can be fetched, by their bare names; got 'mnist'"
    ):
        fetch("mnist", tmp_path)


HALVES = {"train": Counts(2, 5), "test": Counts(2, 3)}
# Reader, its counts, its tree's writer, the archives' own top folders.
BY_HAND = {
    "cub200": (cub200, HALVES, write_cub200, ["CUB_200_2011"]),
    "cars196": (cars196, HALVES, lambda root: write_cars196(root, devkit=True), ["cars_train", "cars_test"]),
    "sop": (sop, {"train": Counts(2, 5), "test": Counts(3, 5)}, write_sop, ["Stanford_Online_Products"]),
    "inshop": (
        inshop,
        {"train": Counts(2, 4), "query": Counts(3, 4), "gallery": Counts(3, 3)},
        write_inshop,
        ["img"],
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_following_the_instructions_gives_the_data_set(tmp_path, name):
    """Unpacked in the folder, archives give the files that are named, and the reader finds them.

    It does too where an archive was unpacked into a folder named after it.
    """
    read, expected, write, tops = BY_HAND[name]
    words = SOURCES[name].by_hand.format(folder=tmp_path)
    assert f"in {tmp_path}, " in words or f"in {tmp_path} and " in words
    write(tmp_path)
    named = [word.rstrip(",") for word in words.partition("which gives ")[2].split() if "/" in word]
    assert [file for file in named if (tmp_path / file).exists()]
    found = read(tmp_path, expected)
    content = [found.encoded(index) for index in range(len(found))]
    for top in tops:
        (tmp_path / top).rename(tmp_path / "moved")
        (tmp_path / top).mkdir()
        (tmp_path / "moved").rename(tmp_path / top / top)
    doubled = read(tmp_path, expected)
    assert doubled.labels.tolist() == found.labels.tolist()
    assert [doubled.encoded(index) for index in range(len(doubled))] == content


def test_every_source_says_where_by_hand():
    """Each names its folder, and each file an address and a checksum."""
    for source in SOURCES.values():
        assert "{folder}" in source.by_hand
        assert all(file.urls and file.md5 for file in source.files)
