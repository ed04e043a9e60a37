"""Which versions the development server has loaded, and when: TensorFlow Serving's rules."""

import contextlib
import shutil
import types

import pytest

from serving.development import versions as versions_module
from serving.development.errors import StatusError
from serving.development.versions import Versions
from serving.versions import roll_back, set_label, write_manifest

HOUR_S = 3600.0


class Folder:
    """A folder of versions, and what happens when a server loads them.

    Args:
        folder: where.
        monkeypatch: loads are counted instead of done.
    """

    def __init__(self, folder, monkeypatch):
        self.folder, self.lines, self.while_loading = folder, [], lambda number: None
        monkeypatch.setattr(versions_module, "Servable", self._load)

    def _load(self, folder, number):
        if (folder / "saved_model.pb").read_text() == "corrupt":
            raise ValueError("it is corrupt")
        self.while_loading(number)
        return types.SimpleNamespace(version=number, warmup_requests=0)

    def add(self, *numbers, content="whole"):
        """Versions without a manifest."""
        for number in numbers:
            (self.folder / str(number)).mkdir()
            (self.folder / str(number) / "saved_model.pb").write_text(content)

    @contextlib.contextmanager
    def served(self):
        """A server that looks when it is told to."""
        versions = Versions(self.folder, HOUR_S, self.lines.append)
        yield versions
        versions.stop()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty one."""
    return Folder(tmp_path, monkeypatch)


def loaded(versions):
    """The numbers of the versions that respond, and the one that responds to whoever names none."""
    return [row.version for row in versions.statuses() if row.state == 30], versions.get().version


def test_two_are_loaded_and_the_newest_responds(folder):
    """A new one takes the oldest one's place, once it is loaded."""
    folder.add(1, 2, 3)
    with folder.served() as versions:
        assert loaded(versions) == ([3, 2], 3)
        folder.add(4)
        seen = []
        folder.while_loading = lambda _: seen.append(versions.get().version)
        versions.look()
        assert seen == [3]
        assert loaded(versions) == ([4, 3], 4)
        with pytest.raises(StatusError, match="version 2"):
            versions.get(2)


def test_a_rollback_waits_for_nothing(folder):
    """The version before responds already when the one before that is being loaded."""
    folder.add(1, 2, 3)
    set_label(folder.folder, "stable", 3)
    with folder.served() as versions:
        assert versions.get(label="stable").version == 3
        seen = []
        folder.while_loading = lambda number: seen.append(
            (number, versions.get().version, versions.get(label="stable").version)
        )
        roll_back(folder.folder)
        versions.look()
        assert seen == [(1, 2, 2)]
        assert loaded(versions) == ([2, 1], 2)


def test_a_label_moves_when_its_version_is_loaded(folder):
    """Until then it means the one before; an unknown one is an error."""
    folder.add(1)
    set_label(folder.folder, "stable", 1)
    with folder.served() as versions:
        folder.add(2)
        set_label(folder.folder, "stable", 2)
        seen = []
        folder.while_loading = lambda _: seen.append(versions.get(label="stable").version)
        versions.look()
        assert (seen, versions.get(label="stable").version) == ([1], 2)
        with pytest.raises(StatusError, match="Unrecognized servable version label: canary"):
            versions.get(label="canary")


def test_labelled_versions_stay_loaded(folder):
    """However old."""
    folder.add(1, 2, 3, 4)
    set_label(folder.folder, "stable", 1)
    with folder.served() as versions:
        assert loaded(versions) == ([4, 3, 1], 4)


def test_nothing_responds_once_all_versions_are_gone(folder):
    """As TensorFlow Serving does; it responds again when one comes."""
    folder.add(1, 2)
    with folder.served() as versions:
        for number in (1, 2):
            shutil.rmtree(folder.folder / str(number))
        versions.look()
        with pytest.raises(StatusError, match="Servable not found"):
            versions.get()
        folder.add(1)
        versions.look()
        assert loaded(versions) == ([1], 1)


def test_a_corrupt_version_is_tried_once(folder):
    """Whether the model or its manifest says so; the old ones stay."""
    folder.add(1)
    with folder.served() as versions:
        folder.add(2, content="corrupt")
        folder.add(3)
        (folder.folder / "3" / "assets.extra").mkdir()
        write_manifest(folder.folder / "3")
        (folder.folder / "3" / "saved_model.pb").write_text("changed")
        versions.look()
        versions.look()
        assert versions.get().version == 1
        refused = [line for line in folder.lines if "can't be loaded" in line]
        assert len(refused) == 2
        assert "version 3 can't be loaded" in refused[0]
        assert "saved_model.pb differs" in refused[0]
        assert "it is corrupt" in refused[1]
    assert folder.lines[0].endswith("its files are not verified")
