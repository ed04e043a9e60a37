"""Caffe's SGD against its transcription, saved and loaded, under loss scaling and on two devices."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from rll_tf.training.optimizers import CaffeSGD, step_schedule

ROOT = Path(__file__).parents[2]
STEPS = 20
MULTIPLIERS = {"new": 10.0, "frozen": 0.0}


def caffe(weights, gradients, rates, multipliers, momentum, decay):
    """The weights after each gradient, as ComputeUpdateValue and Update of Caffe's SGDSolver change them."""
    weights = [np.array(weight, np.float64) for weight in weights]
    history = [np.zeros_like(weight) for weight in weights]
    for rate, row in zip(rates, gradients, strict=True):
        for index, gradient in enumerate(row):
            diff = gradient + decay * weights[index]
            history[index] = rate * multipliers[index] * diff + momentum * history[index]
            weights[index] = weights[index] - history[index]
    return weights


def variables():
    """One variable in each of three layers."""
    rng, made = np.random.default_rng(0), []
    for name in ("old", "new", "frozen"):
        layer = keras.layers.Dense(3, use_bias=False, name=name)
        layer.build([None, 4])
        layer.kernel.assign(rng.normal(size=[4, 3]))
        made.append(layer.kernel)
    return made


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("schedule", [False, True])
def test_equals_caffes_update(schedule, scaled):
    """Twenty steps with three multipliers, to 1e-6; a schedule and loss scaling change nothing else."""
    kernels, rng = variables(), np.random.default_rng(1)
    before = [kernel.numpy() for kernel in kernels]
    gradients = rng.normal(size=[STEPS, 3, 4, 3])
    rate = step_schedule(0.02, 6) if schedule else 0.02
    optimizer = CaffeSGD(rate, momentum=0.9, coupled_weight_decay=0.01, multipliers=MULTIPLIERS)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0)
    factor = 1024 if scaled else 1
    for row in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g * factor, "float32") for g in row], kernels)
    rates = [0.02 * 0.5 ** (step // 6) if schedule else 0.02 for step in range(STEPS)]
    wanted = caffe(before, gradients, rates, [1, 10, 0], 0.9, 0.01)
    for kernel, value in zip(kernels, wanted, strict=True):
        np.testing.assert_allclose(kernel, value, rtol=1e-6, atol=1e-6)


def test_saved_with_a_model_and_continued(tmp_path):
    """The configuration, the schedule and the momentum survive: a resumed run takes the same next step."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3), keras.layers.Dense(2, name="new")])
    optimizer = CaffeSGD(step_schedule(0.01, 2), coupled_weight_decay=0.1, multipliers={"new": 10.0})
    model.compile(optimizer, "mse")
    x, y = np.random.default_rng(0).normal(size=[2, 3, 8, 4]).astype(np.float32)
    for step in (0, 1):
        model.train_on_batch(x[step], y[step][:, :2])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == optimizer.get_config()
    for each in (model, loaded):
        each.train_on_batch(x[2], y[2][:, :2])
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


TWO_DEVICES = """
import keras, numpy as np, tensorflow as tf
from rll_tf.models.caffe_layers import BatchNorm
from rll_tf.training.optimizers import CaffeSGD

def train(strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = keras.Input([4])
        outputs = keras.layers.Dense(2, name="new")(keras.layers.Dense(3)(inputs))
        outputs = BatchNorm()(outputs) if NORM else outputs
        model = keras.Model(inputs, outputs)
        model.compile(CaffeSGD(0.01, coupled_weight_decay=0.1, multipliers={"new": 10.0}), "mse")
    x, y = np.random.default_rng(0).normal(size=[2, 24, 4]).astype("float32")
    model.fit(x, y[:, :2], batch_size=8, epochs=4, shuffle=False, verbose=0)
    return model.get_weights()

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
NORM = False
for one, two in zip(train(tf.distribute.get_strategy()), train(mirrored), strict=True):
    np.testing.assert_allclose(one, two, atol=1e-6)
NORM = True
weights = train(mirrored)
assert all(np.isfinite(weight).all() for weight in weights)
assert abs(weights[-1] - 1).max() > 0.1
"""


@pytest.mark.slow
def test_two_devices_equal_one():
    """Twelve steps under MirroredStrategy, and batch norm's statistics move there."""
    # Logical devices must be set up before TensorFlow is: in a process of its own.
    command = [sys.executable, "-c", TWO_DEVICES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_momentum_out_of_bounds_is_refused():
    """The message says what must hold and what was received."""
    with pytest.raises(ValueError, match="momentum must be at least 0 and below 1; got 1"):
        CaffeSGD(momentum=1)


def test_a_multiplier_of_no_layer_is_refused():
    """A misspelt layer would silently learn at the others' rate."""
    with pytest.raises(ValueError, match="must name layers with trainable weights; got newer"):
        CaffeSGD(multipliers={"newer": 10.0}).build(variables())


def test_step_schedule_is_caffes():
    """The rate falls at whole multiples of the period."""
    schedule = step_schedule(0.8, 3)
    assert [round(float(schedule(step)), 6) for step in range(8)] == [0.8] * 3 + [0.4] * 3 + [0.2] * 2
