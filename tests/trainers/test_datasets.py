"""`rll datasets` and `rll datasets fetch`."""

import os
import re
import sys

import pytest

from rll_tf.data import cub200, fetch
from rll_tf.data.download import RemoteFile
from rll_tf.data.layout import Counts
from tests.data.server import serving
from tests.data.test_fetch import tar
from tests.data.trees import write_cub200
from trainers import cli

COUNTS = {"train": Counts(2, 5), "test": Counts(2, 3)}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A root for data sets, and a CUB of eight pictures."""
    monkeypatch.setenv("RLL_DATASETS", str(tmp_path / "sets"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(cub200.cub200, "__defaults__", (COUNTS,))
    return tmp_path / "sets"


def test_the_list_says_what_is_there_and_what_is_not(small, capfd):
    """Complete, absent, and incomplete with both numbers; where each is looked for."""
    write_cub200(small / "cub200")
    (small / "sop").mkdir()
    assert cli.run(["datasets"]) == 0
    output = capfd.readouterr().out
    lines = {line.split()[0]: line for line in output.splitlines()}
    assert lines["cub200[:PATH]"].endswith("yes, 8 pictures")
    assert str(small / "cars196") in lines["cars196[:PATH]"]
    assert lines["cars196[:PATH]"].endswith(" no")
    assert lines["sop[:PATH]"].endswith("incomplete")
    assert output.endswith("fetch NAME brings one there, or says what to put there by hand\n")
    assert f"sop needs the file Ebay_train.txt; looked in {small / 'sop'}" in output
    (small / "cub200/CUB_200_2011/images/002.Bird_2/Bird_2_0001.jpg").unlink()
    assert cli.run(["datasets"]) == 0
    assert "expected 8 picture files; found 7" in capfd.readouterr().out


def test_what_can_not_be_read_is_not_called_incomplete(small, monkeypatch, capfd):
    """A directory without permission to list it is named."""
    write_cub200(small / "cub200")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("002.Bird_2"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert cli.run(["datasets"]) == 0
    output = capfd.readouterr().out
    assert next(line for line in output.splitlines() if line.startswith("cub200[")).endswith("unreadable")
    assert re.search(r"cub200: .*Permission denied: '.*002\.Bird_2'", output)


def test_fetch_brings_counts_and_is_quiet_the_second_time(small, tmp_path, monkeypatch, capfd):
    """From a server on this machine, through the command."""
    tree = write_cub200(tmp_path / "tree")
    files = {
        str(path.relative_to(tree)).replace("/", "__"): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file()
    }
    with serving({"/cub.tgz": tar(**files)}, "interrupts", 1000) as server:
        remote = RemoteFile("cub.tgz", (f"{server.url}/cub.tgz",))
        monkeypatch.setitem(fetch.SOURCES, "cub200", fetch.Source((remote,), "{folder}"))
        assert cli.run(["datasets", "fetch", "cub200"]) == 0
        assert "cub200 is complete: 8 pictures" in capfd.readouterr().out
        assert cli.run(["datasets", "fetch", "cub200"]) == 0
        assert "cub200 is complete already: 8 pictures" in capfd.readouterr().out


def test_fetch_offline_is_one_line_on_what_to_do(small, monkeypatch, capfd):
    """The file, the reason, the path."""
    remote = RemoteFile("cub.tgz", ("http://127.0.0.1:1/cub.tgz",))
    monkeypatch.setitem(fetch.SOURCES, "cub200", fetch.Source((remote,), "unpack it to {folder}"))
    assert cli.run(["datasets", "fetch", "cub200"]) == 1
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1
    assert "cub.tgz can't be fetched" in errors
    assert f"unpack it to {small / 'cub200'}" in errors


@pytest.mark.parametrize("kind", ["glyphs", "folder:", "cub200:", "tfds:mnist", "nothing", ""])
def test_only_the_named_benchmarks_are_fetched(small, pictures, monkeypatch, capfd, kind):
    """Another SPEC is one line, even where it names a complete data set; no other package is used."""
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    name = f"{kind}{write_cub200(small / 'cub200')}" if kind == "cub200:" else kind
    name += str(pictures) * (kind == "folder:")
    assert cli.run(["datasets", "fetch", name]) == 1
    output, errors = capfd.readouterr()
    assert f"only cub200, cars196, sop, inshop can be fetched, by their bare names; got {name!r}" in errors
    assert errors.count("\n") == 1
    assert output == ""
