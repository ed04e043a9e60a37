"""Train on several machines: run this on each with `TF_CONFIG` set, and an OUT folder that all can read.

Without `TF_CONFIG` it starts two workers on this machine, to try. `rll train --strategy multi_worker` does
the same from the command line.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from rll_tf import data, training


def free_port():
    """Of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def start_two_workers(folder):
    """What a scheduler does on two machines: the same command, with the worker's number in `TF_CONFIG`."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    workers = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(config)}
        workers.append(subprocess.Popen([sys.executable, __file__, folder], env=environment))
    return max(abs(worker.wait()) for worker in workers)


def work(folder):
    """Train; the first worker alone validates and writes the run folder."""
    settings = training.Settings(
        strategy="multi_worker",
        levels=("high",),
        input_px=32,
        classes_per_batch=24,  # of the global batch: each worker reads half
        learning_rate=0.2,
        margin=0.8,
        steps=150,
        validate_every_steps=50,
    )
    strategy = training.make_strategy(settings)  # before anything else that makes TensorFlow start
    run = training.train(settings, data.open_dataset("glyphs"), Path(folder), strategy=strategy)
    if training.is_chief(strategy):
        found = json.loads(run.metrics_file.read_text())["validation"]["high"]
        print(f"{folder}: Recall@1 on validation classes {found['recall@1']:.3f}")


if __name__ == "__main__":
    out = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()
    if "TF_CONFIG" in os.environ:
        work(out)
    else:
        sys.exit(start_two_workers(out))
