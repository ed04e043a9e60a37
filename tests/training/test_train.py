"""Training, as a library call; `tests/trainers/test_resume.py` kills it."""

import json
import shutil

import numpy as np
import pytest

from rll_tf.data import CorruptPictureError, open_dataset
from rll_tf.training import Run, Settings, build, evaluate, train
from tests.conftest import write_pictures

SETTINGS = Settings(
    levels=("low",), input_px=16, embedding_dim=8, steps=4, validate_every_steps=2, classes_per_batch=4,
    learning_rate=0.1,
)  # fmt: skip


def test_training_lowers_the_loss_and_keeps_the_best(pictures, tmp_path):
    """The last steps' loss is below the first's; the best checkpoint scores what metrics.json says."""
    settings = Settings(
        **{**SETTINGS.__dict__, "steps": 30, "validate_every_steps": 15, "validation_share": 0.4}
    )
    catalogue = open_dataset(f"folder:{pictures}")
    run = train(settings, catalogue, tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in run.steps_file.read_text().splitlines()]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    cost = json.loads(run.cost_file.read_text())
    assert 0 < cost["seconds_a_step"] < 60
    assert 50 < cost["peak_memory_mib"] < 50_000
    held_out = catalogue.hold_out(0.4, settings.seed).select("validation")
    expected = json.loads(run.metrics_file.read_text())["validation"]
    assert evaluate(run.best_model(), held_out, settings.preprocessing) == expected


def test_the_seed_decides_the_weights():
    """Equal seeds build equal models, other seeds others."""
    first, same, other = (build(Settings(input_px=16, seed=seed)).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_without_validation_the_last_checkpoint_is_the_best(tmp_path, capsys):
    """Three classes are too few to hold any out; the output says so."""
    folder = write_pictures(tmp_path / "pictures", classes=3)
    settings = Settings(**{**SETTINGS.__dict__, "classes_per_batch": 3})
    run = train(settings, open_dataset(f"folder:{folder}"), tmp_path / "run")
    assert "no classes are held out" in capsys.readouterr().out
    assert json.loads(run.metrics_file.read_text()) == {"steps": 4, "best_step": 4}
    last = run.best_model().get_weights()
    assert not np.array_equal(last[0], build(settings).get_weights()[0])


def test_training_ends_when_patience_runs_out(pictures, tmp_path, capsys):
    """After so many validations without a better one, and not again when resumed."""
    settings = SETTINGS.override(["learning_rate=1e-9", "validation_share=0.4", "patience=1"])
    catalogue = open_dataset(f"folder:{pictures}")
    for resume in (False, True):
        run = train(settings, catalogue, tmp_path / "run", resume=resume)
        assert [row["step"] for row in run.epochs()] == [0, 2]
        assert json.loads(run.metrics_file.read_text())["steps"] == 2
    assert "ended at step 2: 1 validations without a better one" in capsys.readouterr().out
    with pytest.raises(ValueError, match="patience needs classes to validate on; none of folder:"):
        train(settings.override(["validation_share=0"]), catalogue, tmp_path / "other")


@pytest.mark.parametrize(("minutes", "steps"), [(0, [1, 2, 3, 4]), (10, [2, 4])])
def test_checkpoints_are_saved_by_time_too(minutes, steps, pictures, tmp_path, monkeypatch):
    """With 0 minutes after each step, and the last two are kept."""
    saved, save = [], Run.save_state

    def save_state(self, model, step):
        saved.append(step)
        save(self, model, step)

    monkeypatch.setattr(Run, "save_state", save_state)
    settings = SETTINGS.override([f"checkpoint_minutes={minutes}"])
    run = train(settings, open_dataset(f"folder:{pictures}"), tmp_path / "run")
    assert saved == steps
    run.last_file.unlink()
    assert run.last_state()[1] == steps[-2]


def test_a_data_sets_own_splits_are_used(tmp_path):
    """Glyphs brings its validation classes; test classes are never opened."""
    run = train(SETTINGS.override(["steps=1"]), open_dataset("glyphs"), tmp_path / "run")
    classes = run.config["classes"]
    assert {split: len(names) for split, names in classes.items()} == {
        "train": 85,
        "validation": 21,
        "test": 107,
    }


def test_resuming_on_other_pictures_is_refused(run_folder, tmp_path):
    """The message gives both fingerprints."""
    other = write_pictures(tmp_path / "other", per_class=4)
    with pytest.raises(ValueError, match=r"\(30 pictures, \w+\); folder:.* now holds 24 pictures, \w+"):
        train(SETTINGS, open_dataset(f"folder:{other}"), run_folder, resume=True)


def test_a_folder_that_holds_something_is_never_written_to(pictures, tmp_path):
    """Not even when it is no run."""
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(FileExistsError, match="a run is never overwritten"):
        train(SETTINGS, open_dataset(f"folder:{pictures}"), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]


def test_a_corrupt_picture_stops_training_and_is_named(tmp_path):
    """The message names the file."""
    folder = write_pictures(tmp_path / "pictures")
    (folder / "class 5" / "1.png").write_bytes(b"no picture")
    with pytest.raises(CorruptPictureError, match=r"class 5/1\.png"):
        train(SETTINGS, open_dataset(f"folder:{folder}"), tmp_path / "run")


def test_a_folder_without_a_run_is_refused(tmp_path):
    """It has no configuration, or no checkpoint yet."""
    with pytest.raises(FileNotFoundError, match=r"is not a run: it has no config\.json"):
        Run.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet"):
        Run.open(tmp_path).best_model()


def test_the_error_for_a_damaged_run_names_its_file(run_folder, tmp_path):
    """A configuration that lacks or adds something, a checkpoint that is cut or holds something else."""
    folder = shutil.copytree(run_folder, tmp_path / "run")
    run = Run.open(folder)
    content, config = run.best_file.read_bytes(), run.config
    middle = len(content) // 2
    for damaged in (b"text", content[:middle]):
        run.best_file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"best\.keras can't be loaded"):
            run.best_model()
    for damaged, message in [
        ({}, "must hold classes, data, fingerprint, settings"),
        ([], "must hold classes, data, fingerprint, settings"),
        ({**config, "settings": {}}, "other settings"),
        ({**config, "settings": {**config["settings"], "colour": 1}}, "other settings.*colour"),
    ]:
        run.config_file.write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match=message):
            _ = run.settings
