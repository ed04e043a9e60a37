"""The commit of the source code that runs."""

from __future__ import annotations

import subprocess
from pathlib import Path


def source_commit() -> str | None:
    """The commit of the checkout that this package lies in, `-dirty` appended where files differ from it.

    None where the package is installed without its history, or there is no git.
    """
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # or this is another project's checkout
        return _git("rev-parse", "HEAD").strip() + ("-dirty" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*command: str) -> str:
    words = ["git", "-C", str(Path(__file__).parent), *command]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
