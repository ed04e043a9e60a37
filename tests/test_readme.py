"""What README.md and the pages of docs/ show runs.

Python blocks and the five commands of a folder are run; of the other commands, which take hours, data sets or
a server, the names and options are checked.
"""

import re
import shutil

import pytest

from tests.conftest import ROOT, rll, write_pictures
from trainers import cli

PAGES = {
    file.relative_to(ROOT).as_posix(): file.read_text("utf-8")
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
PYTHON = [
    (page, block)
    for page, text in PAGES.items()
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    # tests/serving/test_conformance.py runs the one with an endpoint, test_vector_database.py the other
    if "EmbeddingClient" not in block and "lancedb" not in block
]


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[page for page, _ in PYTHON])
def test_the_python_code_runs(page, block):
    """Each block as it stands, but for the number of steps."""
    exec(block.replace("steps_per_epoch=300", "steps_per_epoch=2, verbose=0"), {})


def test_the_readme_trains():
    """Its code is found, and has the number of steps that the test above lowers."""
    assert sum("steps_per_epoch=300" in block for page, block in PYTHON if page == "README.md") == 1


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_are_those_that_exist(page):
    """Every `rll` line names a command, and its options are the command's."""
    text = PAGES[page].replace("\\\n", "")
    for line in re.findall(r"^(?: {4})?(?:\.venv/bin/)?(rll \w+ .*)", text, re.MULTILINE):
        words = line.split("#")[0].split()
        command = cli.rll.commands[words[1]]
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        assert set(re.findall(r"--[a-z-]+", line)) <= known, line


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/your-pictures.md"])
def test_the_five_commands_of_a_folder_run(page, tmp_path, monkeypatch, capsys):
    """As printed, but for the number of steps: the picture searched for is found."""
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures" / "train", classes=12)
    for number in range(4):
        place = tmp_path / "pictures" / "others" / f"class {number}"
        place.parent.mkdir(exist_ok=True)
        (tmp_path / "pictures" / "train" / f"class {number}").rename(place)
    shutil.copy(tmp_path / "pictures" / "others" / "class 0" / "3.png", "query.jpg")
    (block,) = re.findall(r"```\n(rll train folder.*?)```", PAGES[page], re.DOTALL)
    for line in block.splitlines():
        rll(*line.split()[1:], *(["--set", "steps=2"] if "rll train" in line else []))
    assert "class 0/3.png" in capsys.readouterr().out


def test_every_command_is_listed():
    """In "Get started"."""
    listed = set(re.findall(r"^rll (\w+)", PAGES["docs/get-started.md"], re.MULTILINE))
    assert listed == set(cli.rll.commands)


def headings(text):
    """The names that GitHub and Sphinx give to a page's headings."""
    lines = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    """Addresses inside the repository, down to the heading."""
    for address, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", PAGES[page]):
        target = (ROOT / page).parent.joinpath(address).resolve() if address else ROOT / page
        assert target.exists(), address
        assert not heading or heading in headings(target.read_text("utf-8")), f"{address}#{heading}"


@pytest.mark.parametrize("room", re.findall(r"^\| `([a-z_/]+)/` \|", PAGES["CONTRIBUTING.md"], re.MULTILINE))
def test_the_rooms_exist(room):
    """The map's folders are there."""
    assert (ROOT / room).is_dir()
