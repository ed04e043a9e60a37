"""`rll embed --engine beam`: the pipeline, here in one process and, slow, in two."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from serving.gallery import open_gallery
from tests.conftest import ROOT, rll, write_pictures
from trainers import cli

beam = pytest.importorskip("apache_beam")

from apache_beam.io.filesystem import FileMetadata  # noqa: E402
from apache_beam.io.localfilesystem import LocalFileSystem  # noqa: E402

TWO_PROCESSES = "--direct_num_workers=2 --direct_running_mode=multi_processing"


class Bucket(LocalFileSystem):
    """A filesystem whose paths have a scheme; `bucket://x` is the file `root/x`."""

    root = None

    @classmethod
    def scheme(cls):
        """Of its paths."""
        return "bucket"

    def _here(self, path):
        return path.replace("bucket:/", str(self.root), 1)

    def exists(self, path):
        """See `LocalFileSystem`."""
        return super().exists(self._here(path))

    def metadata(self, path):
        """See `LocalFileSystem`."""
        return FileMetadata(path, self.size(self._here(path)), 0)

    def _list(self, path):
        for match in super()._list(self._here(path)):
            yield FileMetadata(match.path.replace(str(self.root), "bucket:/", 1), match.size_in_bytes, 0)

    def _path_open(self, path, *arguments, **options):
        return super()._path_open(self._here(path), *arguments, **options)

    def split(self, path):
        """See `LocalFileSystem`."""
        return tuple(path.rsplit("/", 1))


@pytest.fixture(scope="module")
def with_two_bad(tmp_path_factory):
    """30 pictures, one file that is cut short, one that leads nowhere, and a name that is not UTF-8."""
    folder = write_pictures(tmp_path_factory.mktemp("beam") / "pictures")
    whole = (folder / "class 0" / "0.png").read_bytes()
    (folder / "class 1" / "cut.png").write_bytes(whole[:-30])
    (folder / "class 2" / "nowhere.png").symlink_to(folder / "nothing")
    os.rename(folder / "class 3" / "0.png", os.fsencode(folder) + b"/class 3/na\xefve.png")
    return folder


def by_path(gallery):
    """Path -> embedding and class."""
    names = gallery["class_names"][gallery["labels"]]
    return {str(path): row for path, *row in zip(gallery["paths"], gallery["embeddings"], names, strict=True)}


@pytest.fixture(scope="module")
def embedded(exported, with_two_bad, tmp_path_factory):
    """What the pipeline wrote of them."""
    to = tmp_path_factory.mktemp("embedded") / "parquet"
    data = ("--data", f"folder:{with_two_bad}")
    rll("embed", exported, *data, "--engine", "beam", "--to", to, "--shards", 2)
    return to


def test_it_gives_the_embeddings_of_rll_embed(embedded, exported, with_two_bad, tmp_path):
    """To 1e-5, with labels, paths, level and model; in as many files as were asked for."""
    file = tmp_path / "gallery.npz"
    rll("embed", exported, "--data", f"folder:{with_two_bad}", "--to", file, "--skip-corrupt")
    found, wanted = open_gallery(embedded), open_gallery(file)
    assert len(list(embedded.glob("embeddings-*.parquet"))) == 2
    for name in ("level", "version", "weights_sha256"):
        assert found[name] == wanted[name]
    wanted["paths"] = [os.fsencode(path).decode("utf-8", "backslashreplace") for path in wanted["paths"]]
    found, wanted = by_path(found), by_path(wanted)
    assert len(found) == 30
    assert found.keys() == wanted.keys()
    for path, (embedding, name) in wanted.items():
        np.testing.assert_allclose(found[path][0], embedding, atol=1e-5)
        assert found[path][1] == name


def test_what_can_not_be_read_is_listed(embedded):
    """One line of JSON each, with the reason; the others are embedded."""
    text = "".join(file.read_text("utf-8") for file in sorted(embedded.glob("unreadable-*.jsonl")))
    reasons = {os.path.basename(line["path"]): line["reason"] for line in map(json.loads, text.splitlines())}
    assert set(reasons) == {"cut.png", "nowhere.png"}
    assert reasons["nowhere.png"] == "can't be read (No such file or directory)"
    assert reasons["cut.png"]


def test_search_and_evaluate_read_the_folder(embedded, exported, with_two_bad, capfd, tmp_path):
    """As they read the file; a picture of the gallery finds itself first."""
    picture = with_two_bad / "class 4" / "3.png"
    rll("search", exported, picture, "--gallery", embedded, "--top", 1)
    (line,) = capfd.readouterr().out.splitlines()[1:]
    assert line.split("  ")[-2:] == ["class 4", str(picture)]
    rll("evaluate", embedded, "--json", tmp_path / "metrics.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert (metrics["queries"], metrics["classes"]) == (30, 6)
    assert 0 <= metrics["levels"]["concat"]["recall@1"] <= 1


def test_folders_and_tables_on_another_filesystem(exported, with_two_bad, tmp_path, monkeypatch):
    """Listed by the pipeline, with the labels of a local folder; hidden files are left out."""
    monkeypatch.setattr(Bucket, "root", tmp_path)
    shutil.copytree(with_two_bad, tmp_path / "pictures", symlinks=True)
    os.rename(os.fsencode(tmp_path) + b"/pictures/class 3/na\xefve.png", tmp_path / "pictures" / ".hid.png")
    (tmp_path / "table.csv").write_text(
        # A column of no interest whose name is long, and an empty line.
        f'label,path,{"é" * 2**16}\n"a, b",pictures/class 0/0.png\n\nc,pictures/class 5/4.png\n',
        encoding="utf-8",
    )
    for name, data, level in [("a", "folder:bucket://pictures", ()), ("b", "csv:bucket://table.csv", "low")]:
        words = ("--level", level) if level else ()
        rll("embed", exported, "--data", data, "--engine", "beam", "--to", tmp_path / name, *words)
    listed = by_path(open_gallery(tmp_path / "a"))
    assert len(listed) == 29
    assert listed["bucket://pictures/class 5/4.png"][1] == "class 5"
    table = open_gallery(tmp_path / "b")
    assert table["level"] == "low"
    assert {path: name for path, (_, name) in by_path(table).items()} == {
        "bucket://pictures/class 0/0.png": "a, b",
        "bucket://pictures/class 5/4.png": "c",
    }
    np.testing.assert_allclose(
        by_path(table)["bucket://pictures/class 5/4.png"][0].shape,
        listed["bucket://pictures/class 5/4.png"][0].shape[0] // 3,
    )


def test_mistakes_are_one_line(exported, embedded, capfd, tmp_path, monkeypatch):
    """A folder in use, pictures in memory, an unknown level, a file that is not there or no table."""

    def error_of(*words):
        assert cli.run(["embed", str(exported), "--engine", "beam", *map(str, words)]) != 0
        (line,) = capfd.readouterr().err.splitlines()
        return line

    new = ("--to", tmp_path / "new")
    assert "must name a folder without embeddings" in error_of("--data", "digits", "--to", embedded)
    assert "those of digits are in memory" in error_of("--data", "digits", *new)
    assert "no level 'top'" in error_of("--data", "digits", *new, "--level", "top")
    assert "no file bucket://none.csv" in error_of("--data", "csv:bucket://none.csv", *new)
    (tmp_path / "table.csv").write_bytes(b"\xff\xd8\nlabel,path")
    monkeypatch.setattr(Bucket, "root", tmp_path)
    assert "must have a first line with path,label; got '" in error_of(
        "--data", "csv:bucket://table.csv", *new
    )
    (tmp_path / "table.csv").write_text("path,label\na.png\n")
    assert "a line of csv:FILE must have a path and a label; got 'a.png'" in error_of(
        "--data", "csv:bucket://table.csv", *new
    )


def test_rows_of_two_models_are_refused(embedded, tmp_path):
    """Such as two folders' files laid together."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.copytree(embedded, tmp_path / "mixed")
    file = max((tmp_path / "mixed").glob("*.parquet"), key=lambda file: file.stat().st_size)
    table = pq.read_table(file)
    column = table.schema.get_field_index("version")
    other = pa.array(np.arange(len(table)) // 20)
    pq.write_table(table.set_column(column, table.schema.field(column), other), file)
    with pytest.raises(ValueError, match="must hold the embeddings of one model; version is"):
        open_gallery(tmp_path / "mixed")


def processes():
    """Process -> its parent and its command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(entry.name)] = parent, (entry / "cmdline").read_text()
    return found


def workers_of(process):
    """The processes that a command's pipeline started and that compute."""
    alive = processes()

    def descends(number):
        while number in alive and number != process:
            number = alive[number][0]
        return number == process

    return [
        number for number, (_, line) in alive.items()
        if "sdk_worker_main" in line and not line.startswith(("sh", "/bin/sh")) and descends(number)
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True])
def test_two_processes_lose_nothing(exported, tmp_path, is_killed):
    """Nor where one of them is killed in the middle: the command says so, and runs the pipeline again."""
    folder = write_pictures(tmp_path / "pictures", classes=20, per_class=40)
    to = tmp_path / "parquet"
    command = [sys.executable, "-m", "trainers.cli", "embed", exported, "--data", f"folder:{folder}"]
    command += ["--engine", "beam", "--engine-args", TWO_PROCESSES, "--to", to]
    process = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if is_killed:
        # Both have the model's libraries loaded: they are embedding, or about to.
        while process.poll() is None and not (ready := [
            number for number in workers_of(process.pid)
            if "tensorflow" in Path(f"/proc/{number}/maps").read_text()
        ])[1:]:  # fmt: skip
            time.sleep(0.1)
        os.kill(ready[0], signal.SIGKILL)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert ("a worker process died: the pipeline runs again" in err) == is_killed
    assert f"embedded 800 pictures: {to}" in out
    found = open_gallery(to)
    assert len(set(found["paths"])) == len(found["paths"]) == 800
    file = tmp_path / "gallery.npz"
    rll("embed", exported, "--data", f"folder:{folder}", "--to", file)
    wanted = by_path(open_gallery(file))
    for path, (embedding, _) in by_path(found).items():
        np.testing.assert_allclose(embedding, wanted[path][0], atol=1e-5)
