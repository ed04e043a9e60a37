"""TensorFlow Addons' losses for `benchmarks.losses`, run by the Python of `.venv-addons`: they need Keras 2.

`losses_addons.py FILE.npz` reads a batch, then names of losses from standard input, one a line, runs each
forward and backward once and prints the seconds that took; "peak" prints the process's peak memory in MB.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

LOSSES = {
    "triplet_semihard": tfa.losses.TripletSemiHardLoss,
    "triplet_hard": tfa.losses.TripletHardLoss,
    "lifted_struct": tfa.losses.LiftedStructLoss,
    "npairs": tfa.losses.NpairsLoss,
    "contrastive": tfa.losses.ContrastiveLoss,
}


def step(name: str, batch: Mapping[str, np.ndarray]) -> Callable[[], object]:
    """A function that runs one forward and backward pass."""
    loss = LOSSES[name]()
    kind = name if name in ("npairs", "contrastive") else "batch"
    labels, inputs = (tf.constant(batch[f"{kind}_{part}"]) for part in ("labels", "inputs"))

    @tf.function
    def forward_backward(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = tf.reduce_mean(loss(labels, inputs))
        return value, tape.gradient(value, inputs)

    return lambda: [each.numpy() for each in forward_backward(inputs)]


def main() -> None:
    """Serve the names that come."""
    batch = np.load(sys.argv[1])
    steps: dict[str, Callable[[], object]] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        name = line.strip()
        if name == "peak":
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, flush=True)
            continue
        if name not in steps:
            steps[name] = step(name, batch)
        start = time.perf_counter()
        steps[name]()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
