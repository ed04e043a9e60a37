"""The folder of versions: labels, the way back, what is kept, and manifests."""

import json

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.publish import drafting, publish
from serving.versions import (
    CONFIG_FILE,
    MANIFEST_FILE,
    keep_last,
    labels_of,
    roll_back,
    server_config,
    set_label,
    verify_manifest,
    versions_of,
    write_config,
    write_manifest,
)
from trainers import cli


def add_versions(folder, *numbers):
    """Folders that look like versions."""
    for number in numbers:
        (folder / str(number) / "assets.extra").mkdir(parents=True)
        (folder / str(number) / "saved_model.pb").write_text(f"model {number}")
    write_config(folder)


def config_of(folder):
    """The one model of models.pbtxt, by TensorFlow Serving's own class."""
    text = (folder / CONFIG_FILE).read_text()
    (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("rll_tf", "/models/rll_tf", "tensorflow")
    return model


def test_the_newest_two_are_loaded(tmp_path):
    """Whichever they are; labels of older ones name all that are loaded."""
    add_versions(tmp_path, 3, 9, 10)
    assert versions_of(tmp_path) == [3, 9, 10]
    assert config_of(tmp_path).model_version_policy.latest.num_versions == 2
    set_label(tmp_path, "canary", 10)
    assert config_of(tmp_path).model_version_policy.latest.num_versions == 2
    set_label(tmp_path, "stable", 3)
    model = config_of(tmp_path)
    assert list(model.model_version_policy.specific.versions) == [3, 9, 10]
    assert dict(model.version_labels) == labels_of(tmp_path) == {"canary": 10, "stable": 3}
    assert (tmp_path / CONFIG_FILE).stat().st_mode & 0o777 == 0o644
    assert 'base_path: "/here"' in server_config(tmp_path, "other", "/here")


def test_a_rollback_withdraws_the_newest(tmp_path, capfd):
    """By one command; its labels go to the one before, and no number comes twice."""
    add_versions(tmp_path, 1, 2)
    set_label(tmp_path, "stable", 1)
    set_label(tmp_path, "canary", 2)
    assert cli.run(["rollback", str(tmp_path)]) == 0
    assert capfd.readouterr().out == "version 2 is withdrawn; version 1 is served\n"
    assert versions_of(tmp_path) == [1]
    assert labels_of(tmp_path) == {"stable": 1, "canary": 1}
    assert (tmp_path / "withdrawn-2" / "saved_model.pb").read_text() == "model 2"
    with drafting(tmp_path) as draft:
        assert publish(draft, tmp_path).name == "3"
    with pytest.raises(ValueError, match="must hold 2 versions to go back to the one before; it holds 1"):
        roll_back(tmp_path)


def test_old_versions_are_deleted_on_request(tmp_path):
    """All but the newest, and those that have a label."""
    add_versions(tmp_path, 1, 2, 3, 4, 5)
    set_label(tmp_path, "stable", 2)
    assert keep_last(tmp_path, 2) == [1, 3]
    assert versions_of(tmp_path) == [2, 4, 5]
    assert keep_last(tmp_path, 9) == []


def test_labels_are_set_by_a_command(tmp_path, capfd):
    """To a version that is there."""
    add_versions(tmp_path, 1, 2)
    assert cli.run(["label", str(tmp_path), "stable", "1"]) == 0
    assert labels_of(tmp_path) == {"stable": 1}
    for words, message in [
        (("stable", "7"), "must hold version 7; it holds 1, 2"),
        (('a"b', "1"), "a label must be letters, digits and ._-; got 'a\"b'"),
    ]:
        capfd.readouterr()
        assert cli.run(["label", str(tmp_path), *words]) == 1
        assert message in capfd.readouterr().err
    assert labels_of(tmp_path) == {"stable": 1}


@pytest.mark.parametrize("command", ["label", "rollback"])
def test_what_holds_no_versions_is_one_line(command, tmp_path, capfd):
    """A path that leads nowhere, an empty folder, a version instead of the folder of versions."""
    add_versions(tmp_path / "model", 1)
    (tmp_path / "empty").mkdir()
    for name, message in {
        "nowhere": "an exported model must be a folder; {} is none",
        "empty": "{} holds no exported model: it has no <version>/saved_model.pb; "
        "rll export RUN --to FOLDER makes one",
        "model/1": "MODEL must be a folder of versions; {} is a version: give " + str(tmp_path / "model"),
    }.items():
        assert cli.run([command, str(tmp_path / name), *(["stable", "1"] if command == "label" else [])]) == 1
        assert capfd.readouterr().err == f"rll: {message.format(tmp_path / name)}\n"


def test_a_version_is_compared_with_its_manifest(tmp_path):
    """Every file; versions of before have none."""
    add_versions(tmp_path, 1)
    version = tmp_path / "1"
    assert not verify_manifest(version)
    (version / "variables").mkdir()
    data = version / "variables" / "data"
    data.write_bytes(b"weights")
    write_manifest(version)
    assert verify_manifest(version)
    assert set(json.loads((version / MANIFEST_FILE).read_text())) == {"saved_model.pb", "variables/data"}
    for change, what in [
        (lambda: data.write_bytes(b"weightz"), "variables/data differs"),
        (data.unlink, "variables/data is missing"),
        (lambda: [data.write_bytes(b"weights"), (version / "other").touch()], "other is not in it"),
        (lambda: (version / MANIFEST_FILE).write_text("[1"), "must be a manifest"),
    ]:
        change()
        with pytest.raises(ValueError, match=what):
            verify_manifest(version)
