"""Runs with other losses than Ranked List Loss: their settings, their proxies, and what each learns."""

import json
import shutil

import numpy as np
import pytest

from rll_tf.data import open_dataset
from rll_tf.losses import LOSSES, TripletHardLoss
from rll_tf.training import Settings, build, evaluate, train
from serving.export import describe_signatures
from tests.conftest import rll

SMALL = Settings(
    levels=("low", "high"), input_px=16, embedding_dim=8, steps=4, validate_every_steps=2,
    classes_per_batch=4, learning_rate=0.01,
)  # fmt: skip


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["loss=proxy_ancor"], "unknown loss 'proxy_ancor'; did you mean proxy_anchor"),
        (["loss=x"], "unknown loss 'x'; known are: ranked_list, "),
        (["loss=proxy_anchor", "loss.alhpa=2"], "proxy_anchor has no parameter 'alhpa'; did you mean alpha"),
        (["loss=spectral_clust", "loss.m=2"], "spectral_clust has no parameter 'm'; it has none"),
        (["loss.alpha=2"], "ranked_list's alpha is a setting itself: alpha=VALUE"),
        (["loss=triplet_hard", "loss.soft=2"], "loss.soft must be true or false; got '2'"),
    ],
)
def test_misspelt_losses_and_parameters(assignments, message):
    """The nearest names, or all of them."""
    with pytest.raises(ValueError, match=message):
        Settings().override(assignments)


def test_a_losss_parameters_come_in_any_order_and_survive_json():
    """Another loss forgets those of the one before; later overrides keep them."""
    settings = Settings().override(["loss.margin=2", "loss=triplet_hard", "loss.soft=false"])
    assert settings.loss_parameters == {"margin": 2.0, "soft": False}
    assert settings.override(["loss.margin=3"]).loss_parameters == {"margin": 3.0, "soft": False}
    assert settings.override(["loss=lifted_struct"]).loss_parameters == {}
    proxies = settings.override(["loss=proxy_nca"])
    assert proxies.learning_rate == pytest.approx(settings.learning_rate / 8)
    assert proxies.override(["loss=triplet_hard"]).learning_rate == pytest.approx(settings.learning_rate)
    assert proxies.override(["loss=struct_clust", "learning_rate=0.3"]).learning_rate == 0.3
    values = json.loads(json.dumps(settings.__dict__))
    assert Settings.from_dict(values) == settings
    loss = build(settings.override(["input_px=16"])).loss["low"]
    assert isinstance(loss, TripletHardLoss)
    assert (loss.margin, loss.soft) == (2.0, False)


@pytest.mark.slow
def test_a_run_is_resumed_and_evaluated(tmp_path):
    """A killed run learns what a whole one learns; its best model has embeddings alone."""
    settings = SMALL.override(["loss=proxy_anchor", "halve_every_steps=3", "levels=low"])
    catalogue = open_dataset("glyphs")
    run = train(settings, catalogue, tmp_path / "run")
    rows, weights = run.steps_file.read_text().splitlines(), run.last_state()[0].get_weights()
    assert all(np.isfinite(json.loads(row)["loss"]) for row in rows)
    assert set(run.best_model().output) == {"low"}
    rll("export", run.folder, "--to", tmp_path / "exported")
    assert set(describe_signatures(tmp_path / "exported" / "1")["serving_default"]["outputs"]) == {
        "embedding"
    }
    half = train(settings.override(["steps=2"]), catalogue, tmp_path / "half")
    shutil.copy(half.last_file, run.last_file)
    run.metrics_file.unlink()
    train(settings, catalogue, run.folder, resume=True)
    assert [json.loads(row)["step"] for row in run.steps_file.read_text().splitlines()] == [1, 2, 3, 4]
    for found, expected in zip(run.last_state()[0].get_weights(), weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_proxies_learn_faster_and_are_resumed(tmp_path):
    """They move; the last checkpoint has them and their rate."""
    settings = SMALL.override(["loss=proxy_nca", "validate_every_steps=4"])
    start = build(settings, classes=85)
    run = train(settings, open_dataset("glyphs"), tmp_path / "run")
    model = run.last_state()[0]
    assert model.optimizer.multipliers == {"low_similarity": 10.0, "high_similarity": 10.0}
    before, after = (each.get_layer("low_similarity").proxies.numpy() for each in (start, model))
    assert np.abs(after - before).max() > 1e-3


def test_spectral_clust_needs_a_batch_larger_than_the_embedding():
    """The error names the settings to change."""
    settings = SMALL.override(["loss=spectral_clust", "embedding_dim=12"])
    with pytest.raises(ValueError, match="images_per_class must exceed embedding_dim; got 4 × 3 and 12"):
        build(settings)
    build(settings.override(["embedding_dim=11"]))


# Where the glyphs recipe doesn't suit: an embedding smaller than the batch.
OWN = {"spectral_clust": ["embedding_dim=64"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_learns_glyphs(name, tmp_path, capsys):
    """100 steps of the convnet, to a Recall@1 above the untrained network's."""
    from trainers.recipes import RECIPES

    assignments = [f"loss={name}", "steps=100", *OWN.get(name, [])]
    settings = Settings(**RECIPES["glyphs"].settings).override(assignments)
    catalogue = open_dataset("glyphs")
    letters = catalogue.select("test")
    untrained = evaluate(build(settings, classes=85), letters, settings.preprocessing, clustering=False)
    run = train(settings, catalogue, tmp_path / "run")
    trained = evaluate(run.last_state()[0], letters, settings.preprocessing, clustering=False)
    before, after = (each["concat"]["recall@1"] for each in (untrained, trained))
    with capsys.disabled():
        print(f"\n| `{name}` | {before:.3f} | {after:.3f} | {trained['concat']['map@r']:.3f} |")
    assert after > before
