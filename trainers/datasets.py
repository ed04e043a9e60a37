"""`rll datasets`: what there is, under which path, whether it is there; and fetching it."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

from rll_tf.data import DATASETS, Dataset, counted, dataset_path, open_dataset
from rll_tf.data.download import Progress, RemoteFile
from rll_tf.data.fetch import SOURCES
from rll_tf.data.fetch import fetch as fetch_files
from rll_tf.progress import progress
from trainers.console import print_table
from trainers.suggestions import suggesting


def list_datasets() -> None:
    """Print a table of the data sets, then what is missing of those that are incomplete."""
    rows = [("SPEC", "what", "where", "there")]
    missing = []
    for name, entry in DATASETS.items():
        there, line = _state(name, entry)
        where = f"{dataset_path(name)}: {entry.where}" if entry.has_default_path else entry.where
        rows.append((entry.usage, entry.what, where, there))
        missing += [line] if line else []
    print_table(rows)
    for line in missing:
        print(line)
    print(
        f"benchmarks lie in {dataset_path('NAME')} (RLL_DATASETS sets another root); "
        "rll datasets fetch NAME brings one there, or says what to put there by hand"
    )


def _state(name: str, entry: Dataset) -> tuple[str, str]:
    """A word for the table, and a line on what is incomplete."""
    if name == "tfds":
        return ("yes" if importlib.util.find_spec("tensorflow_datasets") else "no"), ""
    if not entry.has_default_path:
        return ("-" if entry.has_path else "yes"), ""
    try:
        if not dataset_path(name).is_dir():
            return "no", ""
        catalogue = open_dataset(name)
    except (ValueError, OSError) as error:
        # An error of the system has a number; the readers' own, of what is missing, have none.
        unreadable = isinstance(error, OSError) and error.errno is not None
        return "unreadable" if unreadable else "incomplete", f"{name}: {error}" if unreadable else str(error)
    return f"yes, {counted(len(catalogue), 'picture')}", ""


def fetch(name: str) -> None:
    """Fetch a benchmark to its path and count it.

    Raises:
        ValueError: it can't be fetched by name, or what arrived is not complete.
        DownloadError: no source gave it; the message says what to put where by hand.
    """
    folder = dataset_path(name)
    with contextlib.suppress(ValueError, OSError):
        if name in SOURCES:
            print(f"{name} is complete already: {len(open_dataset(name)):,} pictures in {folder}")
            return
    with suggesting(SOURCES, name), contextlib.ExitStack() as bars:
        fetch_files(name, folder, lambda file: bars.enter_context(_bar(file)))
    print(f"{name} is complete: {len(open_dataset(name)):,} pictures in {folder}")


@contextlib.contextmanager
def _bar(file: RemoteFile) -> Iterator[Progress]:
    """A progress bar of bytes."""
    with progress(what=file.name, total=1, unit_scale=True) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total or done
            bar.update(done - bar.n)

        yield show
