"""What surrounds every command: its exit status, its one line of error, tables, TensorFlow's own messages."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import click

USAGE, FAILURE, INTERRUPTED = 2, 1, 130
PREFIX = "rll: "  # of an error
HINT = "--skip-corrupt leaves such pictures out"
# Errors whose message says enough.
EXPECTED = (ValueError, OSError, ImportError)


def main(commands: click.Group) -> None:
    """Run the command line's command as this process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path may hold bytes that are not UTF-8; a log shows lines as they come.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    sys.exit(run(commands, sys.argv[1:]))


def run(commands: click.Group, arguments: list[str]) -> int:
    """Run a command and return its exit status: 0, or another after one line on standard error."""
    os.environ.setdefault("RLL_PROGRESS", "1")  # see `rll_tf.progress`
    try:
        # Not `commands.main`, which prints an empty line on Control-C.
        with (
            _native_messages_held(),
            warnings.catch_warnings(),
            commands.make_context("rll", list(arguments)) as context,
        ):
            warnings.showwarning = _warn
            commands.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return USAGE
    except click.ClickException as error:
        return _complain(error.format_message(), USAGE)
    except KeyboardInterrupt as interrupt:
        return _complain(str(interrupt) or "interrupted", INTERRUPTED)
    except EXPECTED as error:
        if _debugging():
            traceback.print_exc()
        return _complain(_describe(error), FAILURE)
    return 0


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of equally many cells, each column as wide as its widest cell."""
    widths = _widths(rows)
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def table_width(rows: Sequence[Sequence[str]]) -> int:
    """How many columns of a terminal `print_table` takes."""
    widths = _widths(rows)
    return sum(widths) + 2 * (len(widths) - 1)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _debugging() -> bool:
    return bool(os.environ.get("RLL_DEBUG"))


@contextlib.contextmanager
def _native_messages_held() -> Iterator[None]:
    """Hold back what TensorFlow's C++ libraries write to standard error; Python's own messages pass.

    They describe processors while they load, and every picture they can't decode, and would bury the one
    line of a user's mistake. After an unexpected error they are shown.
    """
    if _debugging():
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    python_stderr = sys.stderr
    python_stderr.flush()
    screen = os.dup(2)
    with (
        tempfile.TemporaryFile() as messages,
        os.fdopen(os.dup(screen), "w", buffering=1, errors="backslashreplace") as passing,
    ):
        os.dup2(messages.fileno(), 2)
        if python_stderr is sys.__stderr__:
            sys.stderr = passing
        try:
            yield
        except (click.ClickException, click.exceptions.Exit, KeyboardInterrupt, *EXPECTED):
            raise
        except BaseException:
            messages.seek(0)
            os.write(screen, messages.read())
            raise
        finally:
            sys.stderr = python_stderr
            os.dup2(screen, 2)
            os.close(screen)


def _describe(error: Exception) -> str:
    if type(error).__name__ == "CorruptPictureError":  # not imported: that loads TensorFlow
        return f"{error}; {HINT}"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def _warn(message: Warning | str, *where: Any, **how: Any) -> None:
    """One line, without the place in the code."""
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _complain(message: str, status: int) -> int:
    print(PREFIX + " ".join(message.split()), file=sys.stderr)
    return status
