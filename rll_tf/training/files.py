"""JSON files and lines of a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rll_tf.files import replacing


def write_json(file: Path, value: Any) -> None:
    """Write `value` as indented JSON, in one move.

    A path's bytes that are not UTF-8, which Python keeps as lone surrogates, are written as JSON's escapes
    and come back as they were.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it is not JSON; the message names the file.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not a JSON file: {error}") from error


def append_line(file: Path, row: Mapping[str, Any]) -> None:
    """Append one line of JSON."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read lines of JSON; a missing file has none, and a last line that a kill cut short is left out.

    Raises:
        ValueError: another line is not JSON; the message names it.
    """
    rows: list[dict[str, Any]] = []
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{file} line {number} is not JSON: {error}") from error
    return rows
