"""What TensorBoard reads of a run, by its own reader."""

import csv
import json

import pytest
from google.protobuf import text_format
from PIL import Image

from tests.conftest import TINY_SETTINGS, rll

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
projector_config = pytest.importorskip("tensorboard.plugins.projector.projector_config_pb2")


@pytest.fixture(scope="module")
def board(pictures, tmp_path_factory):
    """A run's folder, and its events."""
    folder = tmp_path_factory.mktemp("run") / "run"
    words = ["--data", f"folder:{pictures}", "--out", folder, *TINY_SETTINGS]
    rll("train", "convnet", *words, "--tensorboard")
    return folder, read(folder)


def read(folder):
    """The events of a run."""
    events = event_accumulator.EventAccumulator(str(folder / "tensorboard"), {"tensors": 0})
    return events.Reload()


def scalars(events, tag):
    """Steps and values."""
    from tensorboard.util import tensor_util

    return {each.step: float(tensor_util.make_ndarray(each.tensor_proto)) for each in events.Tensors(tag)}


def rows(file):
    """The lines of a log."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_logged_number_is_an_event(board):
    """Losses, mined shares and validation metrics as in the logs; the learning rate falls to about zero."""
    folder, events = board
    steps, epochs = rows(folder / "steps.jsonl"), rows(folder / "epochs.jsonl")
    for name in steps[0].keys() - {"step"}:
        group = "mined" if name.endswith("_share") else "loss"
        expected = {row["step"]: pytest.approx(row[name]) for row in steps}
        assert scalars(events, f"{group}/{name}") == expected
    for name in ("recall@1", "map@r"):
        expected = {row["step"]: pytest.approx(row["validation"]["concat"][name]) for row in epochs}
        assert scalars(events, f"validation_concat/{name}") == expected
    rates = list(scalars(events, "learning_rate").values())
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(
        json.loads((folder / "config.json").read_text())["settings"]["learning_rate"]
    )
    assert len(events.Tensors("ranked_lists")) == 1


def test_a_resumed_run_has_no_step_twice(board):
    """Its events are written anew from the logs, also where the command line doesn't ask again."""
    folder, events = board
    before = scalars(events, "loss/loss")
    rll("train", "convnet", "--out", folder, "--resume")
    again = read(folder)
    assert len(again.Tensors("loss/loss")) == len(before)
    assert scalars(again, "loss/loss") == before


def test_the_projector_finds_its_files(board):
    """A vector, a name and a picture for each validation picture."""
    folder = board[0] / "tensorboard"
    config = text_format.Parse(
        (folder / "projector_config.pbtxt").read_text(), projector_config.ProjectorConfig()
    )
    (embedding,) = config.embeddings
    with (folder / embedding.tensor_path).open() as stream:
        vectors = [[float(value) for value in row] for row in csv.reader(stream, delimiter="\t")]
    names = (folder / embedding.metadata_path).read_text().splitlines()
    assert len(vectors) == len(names) == 10
    assert {len(row) for row in vectors} == {24}
    assert len(set(names)) == 2
    with Image.open(folder / embedding.sprite.image_path) as sprite:
        assert sprite.size == tuple(4 * side for side in embedding.sprite.single_image_dim)


def test_without_tensorboard_the_flag_is_one_line(pictures, tmp_path, monkeypatch, capfd):
    """It says what to install, before anything is read."""
    from rll_tf.training import tensorboard
    from trainers import cli

    monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda name: None)
    assert cli.run(
        ["train", "convnet", "--data", f"folder:{pictures}", "--out", str(tmp_path / "run"), "--tensorboard"]
    )
    assert "pip install 'rll_tf[tensorboard]'" in capfd.readouterr().err
