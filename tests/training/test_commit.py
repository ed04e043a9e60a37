"""Which state of the source code runs."""

import shutil
import subprocess

from rll_tf.training import commit


def git(folder, *words):
    """A git command in a folder, with an author of its own."""
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", folder, *author, *words], capture_output=True, text=True, check=True
    ).stdout


def test_a_checkout_tells_its_commit_and_an_installation_none(tmp_path, monkeypatch):
    """None without history, or inside another project's; the commit; and that files differ from it."""
    file = shutil.copy(commit.__file__, tmp_path / "commit.py")
    monkeypatch.setattr(commit, "__file__", file)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit.source_commit() is None
    git(tmp_path, "init", "--quiet")
    assert commit.source_commit() is None
    git(tmp_path, "add", "commit.py")
    git(tmp_path, "commit", "--quiet", "--message", "all")
    wanted = git(tmp_path, "rev-parse", "HEAD").strip()
    assert commit.source_commit() == wanted
    (tmp_path / "commit.py").write_text("")
    assert commit.source_commit() == f"{wanted}-dirty"
