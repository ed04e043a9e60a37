"""How far long work is, as seen on a terminal and elsewhere."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios

import pytest

from rll_tf import progress as module
from rll_tf.progress import progress, say, waiting


def terminal(columns):
    """Both ends of a pseudo-terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    return master, slave


def read_all(master):
    """What was written to a terminal whose other end is closed or will be."""
    parts = []
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux's end of file
            part = b""
        if not part:
            os.close(master)
            return b"".join(parts).decode()
        parts.append(part)


def lines_of(output):
    """Each state of each line, without the movements of the cursor."""
    return [line for line in re.split(r"[\r\n]|\x1b\[[0-9;]*[A-Za-z]", output) if line.strip()]


@pytest.fixture
def _at_once(monkeypatch):
    """Commands' progress, every item of it."""
    monkeypatch.setenv("RLL_PROGRESS", "1")
    for name in ("DELAY_S", "_REDRAWN_EVERY_S", "_LINE_EVERY_S"):
        monkeypatch.setattr(module, name, 0)


@pytest.mark.parametrize("setting", [None, "0"])
@pytest.mark.usefixtures("_at_once")
def test_python_is_quiet_unless_asked(setting, capfd, monkeypatch):
    """Without the environment variable, or where it is 0."""
    monkeypatch.delenv("RLL_PROGRESS") if setting is None else monkeypatch.setenv("RLL_PROGRESS", setting)
    with waiting("working"):
        assert list(progress(range(3), "counting")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_what_is_short_shows_nothing(capfd, monkeypatch):
    """Nor do commands, before a second is over."""
    monkeypatch.setenv("RLL_PROGRESS", "1")
    with waiting("working"):
        assert list(progress(range(3), "counting")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("_at_once")
def test_elsewhere_whole_lines(capfd):
    """On standard error alone: how many of how many, or of a generator how many."""
    list(progress(range(2), "counting"))
    list(progress((each for each in range(2)), "walking", unit=" directories"))
    with progress(what="training", total=4, initial=2) as bar:
        say("a line")
        bar.update()
    output, errors = capfd.readouterr()
    assert output == ""
    assert "\r" not in errors
    assert errors.endswith("\n")
    for pattern in [
        r"counting: 2/2, 00:00 left", r"walking: 2 directories, 00:00", r"a line", r"training: 3/4, \S+ left"
    ]:  # fmt: skip
        assert re.search(f"^{pattern}$", errors, re.MULTILINE), errors


@pytest.mark.parametrize(("columns", "widest"), [(80, 77), (200, 77), (40, 37), (0, 77)])
@pytest.mark.usefixtures("_at_once")
def test_a_bar_fits_the_terminal(columns, widest, monkeypatch):
    """And 80 columns, bars within bars and long names too; what is done leaves nothing."""
    master, slave = terminal(columns)
    with os.fdopen(slave, "w", encoding="utf-8") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        for _ in progress(range(3), "outer"):
            list(progress(range(3), "a name that takes a good part of any line, " * 3))
            say("a line")
        with waiting("a name that takes a good part of any line, " * 3):
            pass
    lines = lines_of(read_all(master))
    assert max(map(len, lines)) == widest
    assert any(re.search(r"outer: \|█\S* +\| 2/3, 00:00 left", line) for line in lines), lines
    assert "a line" in {line.strip() for line in lines}
