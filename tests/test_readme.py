"""What README.md shows runs."""

import re

import pytest

from tests.conftest import ROOT
from trainers import cli

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_code_runs():
    """Each block as it stands, but for the number of steps."""
    training, asking = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "steps_per_epoch=300" in training
    exec(training.replace("steps_per_epoch=300", "steps_per_epoch=2, verbose=0"), {})
    assert "EmbeddingClient" in asking  # tests/serving/test_conformance.py asks an endpoint with it


def test_the_commands_are_those_that_exist():
    """Every `rll` line names a command, and its options are the command's."""
    lines = [line.split("#")[0] for line in README.splitlines() if re.match(r"(\.venv/bin/)?rll \w+ ", line)]
    assert len(lines) >= 10
    for line in lines:
        words = line.split()
        command = cli.rll.commands[words[1]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= known


@pytest.mark.parametrize("room", re.findall(r"^\| `([a-z_/]+)/` \|", README, re.MULTILINE))
def test_the_rooms_exist(room):
    """The map's folders are there."""
    assert (ROOT / room).is_dir()
