"""The scripts of examples/ run."""

import pytest

from tests.conftest import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FEWER = {"epochs=30, steps_per_epoch=50": "epochs=2, steps_per_epoch=2"}


@pytest.mark.slow
@pytest.mark.parametrize("file", EXAMPLES, ids=[file.name for file in EXAMPLES])
def test_it_runs(file, capsys):
    """As it stands, but for the number of steps; it is short enough to be read."""
    script = file.read_text("utf-8")
    assert len(script.splitlines()) <= 30
    for many, few in FEWER.items():
        assert many in script
        script = script.replace(many, few)
    exec(script, {})
    assert "Recall@1 on letters never seen: 0." in capsys.readouterr().out
