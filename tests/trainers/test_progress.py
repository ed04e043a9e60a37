"""The commands on a terminal of 80 columns."""

import os
import re
import subprocess
import sys

from tests.conftest import ROOT, TINY_SETTINGS
from tests.test_progress import lines_of, read_all, terminal

# What TensorFlow writes while it is loaded is held back, as commands do.
DRIVER = """
import sys
from trainers import cli, console
with console._native_messages_held():
    from rll_tf import progress
    progress.DELAY_S = progress._REDRAWN_EVERY_S = 0
    for words in " ".join(sys.argv[1:]).split(" , "):
        assert cli.run(words.split()) == 0
"""


def test_bars_fit_the_terminal_and_stay_out_of_pipes(pictures, exported, tmp_path):
    """Long work shows a bar on standard error, where it is a terminal; a pipe gets results alone."""
    data, run, cache = f"folder:{pictures}", tmp_path / "run", tmp_path / "cache"
    train = ["train", "convnet", "--data", data, "--out", run, "--cache", cache, "--skip-corrupt"]
    evaluate = ["evaluate", run, "--report", tmp_path / "report"]
    embed = ["embed", exported, "--data", data, "--to", tmp_path / "gallery.npz"]
    words = [*train, *TINY_SETTINGS, ",", *evaluate, ",", *embed]
    master, slave = terminal(80)
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, *map(str, words)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=slave, text=True,
    ) as process:  # fmt: skip
        os.close(slave)
        screen = read_all(master)
        output, _ = process.communicate()
    assert process.returncode == 0, screen
    lines = lines_of(screen)
    assert max(map(len, lines)) <= 80
    for work in [
        "reading the folder", "looking for copies", "comparing files of equal size", "decoding pictures",
        "reading the cache", "filling the cache", "reading pictures", "training", "embedding",
        "comparing embeddings", "k-means, 2 clusters", "writing the report",
    ]:  # fmt: skip
        assert any(line.startswith(work) for line in lines), work
    state = r"loss \d\.\d{4} \|.+\| step 5/6, \S+ left, MAP@R \d+\.\d, Recall@1 \d+\.\d *"
    assert any(re.fullmatch(state, line) for line in lines), [line for line in lines if "step" in line]
    assert not re.search("\r|\x1b|left|embedding$", output, re.MULTILINE)
    assert "embedded 30 pictures" in output
