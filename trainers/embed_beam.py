"""`rll embed --engine beam`: a collection of any size, by an Apache Beam pipeline.

    list of pictures -> shuffled -> read -> RunInference in batches -> Parquet files
                                     |              |
                                     +-- unreadable-+----------------> lines of JSON

Every row is computed from its picture alone, and files get their names when all are written: a bundle that an
engine runs again, because its worker died, leaves no row twice and none out.
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np

from rll_tf.data import counted, printable
from rll_tf.data.folder import is_picture_name
from rll_tf.data.table import COLUMNS
from rll_tf.progress import say, waiting
from rll_tf.training import CONCAT
from serving.artefact import Artefact
from serving.errors import PictureRejected
from serving.gallery import Identity
from serving.parquet import schema
from trainers.data import open_data, select_split
from trainers.embedder import BATCH_SIZE, FolderEmbedder
from trainers.suggestions import suggesting


@contextlib.contextmanager
def not_logging() -> Iterator[None]:
    """Hold back what Beam logs, some of it while it is imported; its errors are raised, too."""
    logging.disable(logging.NOTSET if os.environ.get("RLL_DEBUG") else logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


try:
    with not_logging():
        import apache_beam as beam
        from apache_beam.io import fileio
        from apache_beam.io.filesystem import CompressionTypes
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.metrics import Metrics, MetricsFilter
        from apache_beam.ml.inference.base import ModelHandler, RunInference
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.portability.api import beam_fn_api_pb2
        from apache_beam.runners.portability.fn_api_runner.worker_handlers import ControlConnection
except ImportError as error:
    raise ImportError(
        f"--engine beam needs the package apache-beam: pip install 'rll_tf[beam]' ({error})"
    ) from error

# Runs here, without the binary that `DirectRunner` downloads before it falls back to this.
LOCAL = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
UNREADABLE = "unreadable"
COUNTERS = "rll_tf"


def embed_beam(
    model: Path,
    data: str,
    to: str,
    *,
    engine_args: str = "",
    split: str | None = None,
    level: str | None = None,
    shards: int | None = None,
) -> None:
    """Write `to/embeddings-*.parquet`, as `serving.parquet` has them, and `to/unreadable-*.jsonl`.

    Args:
        model: an exported folder; the workers open it at the same path.
        data: a SPEC of pictures in files. A `folder:` or `csv:` whose path has a scheme, such as `gs://`, is
            listed by the pipeline, others here.
        to: a folder on any filesystem that Beam writes to, new or without such files.
        engine_args: Beam's own options.
        split: of the data set.
        level: which embedding; None: all levels, concatenated.
        shards: how many Parquet files; None: as many as the engine chooses.

    Raises:
        ValueError: there is no such split or level, or `to` holds embeddings.
        ClickException: the pipeline failed.
    """
    embedder = FolderEmbedder(model)
    with suggesting(embedder.levels, level):
        dim = embedder.artefact.width(level)
    if any(match.metadata_list for match in FileSystems.match([FileSystems.join(to, "embeddings-*")])):
        raise ValueError(f"--to must name a folder without embeddings; {to} holds some")
    try:
        options = PipelineOptions([LOCAL, *shlex.split(engine_args)])
    except ValueError as error:
        raise ValueError(f"--engine-args must be a shell's words; got {engine_args}: {error}") from error

    def pipeline() -> beam.Pipeline:
        made = beam.Pipeline(options=options)
        shuffled = made | "List" >> _listed(data, split) | beam.Reshuffle()
        read = shuffled | beam.ParDo(Read()).with_outputs(UNREADABLE, main="pictures")
        # The version that is the newest now, whatever is exported while workers start.
        embedded = read.pictures | RunInference(Handler(embedder.artefact.folder, level))
        row = beam.ParDo(Row(level or CONCAT, embedder.identity))
        rows = embedded | row.with_outputs(UNREADABLE, main="rows")
        _ = rows.rows | beam.io.WriteToParquet(
            FileSystems.join(to, "embeddings"),
            schema(dim),
            codec="snappy",
            file_name_suffix=".parquet",
            num_shards=shards or 0,
        )
        lines = (read[UNREADABLE], rows[UNREADABLE]) | beam.Flatten() | beam.Map(json.dumps)
        _ = lines | beam.io.WriteToText(FileSystems.join(to, UNREADABLE), file_name_suffix=".jsonl")
        return made

    with waiting("embedding"), not_logging():
        result = _run(pipeline)
    counts = {
        entry.key.metric.name: entry.committed
        for entry in result.metrics().query(MetricsFilter().with_namespace(COUNTERS))["counters"]
    }
    if skipped := counts.get(UNREADABLE, 0):
        print(f"skipped {counted(skipped, 'picture')}: {FileSystems.join(to, UNREADABLE)}-*.jsonl")
    print(f"embedded {counted(counts.get('embedded', 0), 'picture')}: {to}")


class Read(beam.DoFn):
    """(path, label) -> (path, label, the file's bytes); or, as `UNREADABLE`, path and reason."""

    def process(self, picture: tuple[bytes, str]) -> Iterator[Any]:
        """Of one picture."""
        path, label = picture
        try:
            # A name may end in .gz; it is a picture or not.
            file = FileSystems.open(os.fsdecode(path), compression_type=CompressionTypes.UNCOMPRESSED)
            with contextlib.closing(file):
                content = file.read()
        except Exception as error:  # each filesystem raises its own
            yield unreadable(path, f"can't be read ({getattr(error, 'strerror', None) or error})")
        else:
            yield path, label, content


class Handler(ModelHandler[tuple[bytes, str, bytes], tuple[bytes, str, Any], Artefact]):
    """An exported version for `RunInference`: each picture's embedding, or why it has none."""

    def __init__(self, folder: Path, level: str | None) -> None:
        super().__init__(max_batch_size=BATCH_SIZE)
        self._folder, self._level = folder, level

    def load_model(self) -> Artefact:
        """Once a process."""
        return Artefact(self._folder)

    def run_inference(
        self,
        batch: Sequence[tuple[bytes, str, bytes]],
        model: Artefact,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[tuple[bytes, str, np.ndarray | str]]:
        """Path, label, and [d] float32 or the reason."""
        outcomes = embed_or_explain(model, [content for _, _, content in batch], self._level)
        return [(path, label, each) for (path, label, _), each in zip(batch, outcomes, strict=True)]


def embed_or_explain(
    artefact: Artefact, pictures: Sequence[bytes], level: str | None
) -> list[np.ndarray | str]:
    """Each picture's embedding, [d] float32; the reason, where the artefact rejects the picture."""
    outcomes: dict[int, np.ndarray | str] = {}
    left = list(range(len(pictures)))
    while left:
        try:
            rows = artefact.embed([pictures[index] for index in left], level)
        except PictureRejected as error:
            if error.index is None:
                raise
            outcomes[left.pop(error.index)] = error.reason
        else:
            outcomes.update(zip(left, rows, strict=True))
            break
    return [outcomes[index] for index in range(len(pictures))]


class Row(beam.DoFn):
    """(path, label, embedding) -> a row of `serving.parquet`; or, as `UNREADABLE`, path and reason."""

    def __init__(self, level: str, identity: Identity) -> None:
        self._model = {"level": level, **identity.columns()}
        self._count = Metrics.counter(COUNTERS, "embedded")

    def process(self, picture: tuple[bytes, str, np.ndarray | str]) -> Iterator[Any]:
        """Of one picture."""
        path, label, outcome = picture
        if isinstance(outcome, str):
            yield unreadable(path, outcome)
            return
        self._count.inc()
        yield {"embedding": outcome, "label": label, "path": printable(os.fsdecode(path)), **self._model}


def unreadable(path: bytes, reason: str) -> beam.pvalue.TaggedOutput:
    """A line of the side output; counted."""
    Metrics.counter(COUNTERS, UNREADABLE).inc()
    line = {"path": printable(os.fsdecode(path)), "reason": " ".join(reason.split())}
    return beam.pvalue.TaggedOutput(UNREADABLE, line)


def _listed(data: str, split: str | None) -> beam.PTransform:
    """The pictures of a SPEC, as (path, label)."""
    kind, _, path = data.partition(":")
    if kind in ("folder", "csv") and "://" in path:
        if split is not None:
            raise ValueError(f"--split is for data sets on this machine; got {data}")
        return Folder(path.rstrip("/")) if kind == "folder" else Table(path)
    catalogue = select_split(open_data(data), split)
    if catalogue.pixels is not None:
        raise ValueError(f"--engine beam reads picture files; those of {data} are in memory")
    names = [catalogue.class_names[label] for label in catalogue.labels]
    return beam.Create(list(zip(map(os.fsencode, catalogue.paths), names, strict=True)))


class Folder(beam.PTransform):
    """The pictures below a folder of any filesystem, labelled as `folder:PATH` does."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self._root = root

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection:
        """See the class."""
        return begin | fileio.MatchFiles(f"{self._root}/**") | beam.FlatMap(labelled, self._root)


def labelled(match: Any, root: str) -> Iterator[tuple[bytes, str]]:
    """A file of a folder, where it is a picture and neither it nor a directory above it is hidden."""
    below = match.path[len(root) + 1 :]
    if is_picture_name(below) and not any(part.startswith(".") for part in below.split("/")):
        yield os.fsencode(match.path), below.rpartition("/")[0] or "."


class Table(beam.PTransform):
    """The pictures that CSV files list, as `csv:FILE` does; no cell may hold a line's end."""

    def __init__(self, pattern: str) -> None:
        super().__init__()
        self._pattern = pattern
        found = FileSystems.match([pattern])[0].metadata_list
        if not found:
            raise FileNotFoundError(f"csv:FILE needs a table of pictures; there is no file {pattern}")
        with contextlib.closing(FileSystems.open(found[0].path)) as file:
            header = file.readline().decode("utf-8-sig", "replace")
        self._columns = csv.DictReader([header]).fieldnames or ()
        if not set(COLUMNS) <= set(self._columns):
            raise ValueError(f"{found[0].path} must have a first line with path,label; got {header[:80]!r}")

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection:
        """See the class."""
        root = self._pattern.rpartition("/")[0]
        lines = begin | beam.io.ReadFromText(self._pattern, skip_header_lines=1)
        return lines | beam.FlatMap(listed, self._columns, root)


def listed(line: str, columns: Sequence[str], root: str) -> Iterator[tuple[bytes, str]]:
    """A line of a table; a relative path is below its folder."""
    for row in csv.DictReader([line], columns):
        path, label = (row[column] for column in COLUMNS)
        if not path or not label:
            raise ValueError(f"a line of csv:FILE must have a path and a label; got {line!r}")
        absolute = path.startswith("/") or "://" in path
        yield os.fsencode(path if absolute else f"{root}/{path}"), label


def _run(pipeline: Callable[[], beam.Pipeline]) -> Any:
    """Run the pipeline to its end; once more where a local worker process died."""
    for is_last in (False, True):
        built = pipeline()
        with _local_deaths_noticed() as dead:
            try:
                result = built.run()
                result.wait_until_finish()
                return result
            except Exception as error:  # each runner raises its own
                if not dead or is_last:
                    raise click.ClickException(f"the pipeline failed, and wrote nothing: {error}") from error
        say("a worker process died: the pipeline runs again")
    raise AssertionError


@contextlib.contextmanager
def _local_deaths_noticed() -> Iterator[set[ControlConnection]]:
    """Let Beam's local runner fail where a worker process died, for whose answers it would wait for ever.

    Its thread that reads the answers ends with the connection's error, which nobody sees
    (worker_handlers.py of Beam 2.77). Engines other than the local runner have their own ways.
    """
    dead: set[ControlConnection] = set()
    read, push, hook = ControlConnection._read, ControlConnection.push, threading.excepthook

    def answer(connection: ControlConnection) -> None:
        for name, future in list(connection._futures_by_id.items()):
            error = "a worker process died"
            future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=name, error=error))

    def reading(connection: ControlConnection) -> None:
        try:
            read(connection)
        except Exception:  # gRPC's, of a broken connection
            dead.add(connection)
            answer(connection)

    def pushing(connection: ControlConnection, request: Any) -> Any:
        future = push(connection, request)
        if connection in dead:
            answer(connection)
        return future

    def silent(error: threading.ExceptHookArgs) -> None:
        if error.thread is None or error.thread.name not in ("run_worker", "read_grpc_client_inputs"):
            hook(error)

    with mock.patch.multiple(ControlConnection, _read=reading, push=pushing):
        threading.excepthook = silent
        try:
            yield dead
        finally:
            threading.excepthook = hook
