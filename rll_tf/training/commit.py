"""Which state of the source code runs."""

from __future__ import annotations

import subprocess
from pathlib import Path


def source_commit() -> str | None:
    """The commit of the checkout that this package lies in, `-dirty` appended where files differ from it.

    None where the package is installed without its history, or there is no git.
    """
    folder = Path(__file__).parent
    try:
        # An installed package may lie inside the checkout of something else.
        for command in (["ls-files", "--error-unmatch", Path(__file__).name], ["rev-parse", "HEAD"]):
            process = _git(folder, *command)
        return process.stdout.strip() + ("-dirty" if _git(folder, "status", "--porcelain").stdout else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", folder, *command], capture_output=True, text=True, check=True, timeout=30
    )
