"""Resized pictures on disk, so that a photograph is decoded once and not in every epoch."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from rll_tf.data.decode import decode
from rll_tf.data.images import Preprocessing
from rll_tf.progress import progress

# Part of every entry's path: to be raised when decoding or resizing changes a single pixel.
VERSION = 4


@dataclasses.dataclass(frozen=True)
class PictureCache:
    """A folder of resized pictures, each a file of resize_px · resize_px · 3 bytes.

    A picture is found by the content of its file, so renamed, moved and equal files share one entry, and a
    changed file gets another. An entry appears in one move once it is whole: a process that is killed leaves
    at most a temporary file, several processes may share the folder, and a file of another size is written
    again. Nothing is ever removed; delete the folder to be rid of it. At 256 px a picture takes 197 kB.

    Args:
        folder: made if need be.

    Raises:
        OSError: the folder can't be made or written to, which is raised at once and not after hours.
    """

    folder: Path

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise OSError(
                f"a cache must be a folder that can be written into; got {self.folder} ({error.strerror})"
            ) from error

    def keep(self, paths: Sequence[str], preprocessing: Preprocessing) -> list[str]:
        """Put every picture into the cache that is not in it yet; only these are decoded.

        Returns:
            The cached files, one a path.

        Raises:
            OSError: a picture can't be read or the cache can't be written.
            tf.errors.OpError: a picture can't be decoded.
        """
        top = self.folder / f"v{VERSION}-{preprocessing.resize_px}px"
        size = preprocessing.resize_px**2 * 3
        with ThreadPoolExecutor() as threads:
            keys = list(progress(threads.map(_content_key, paths), "reading the cache", total=len(paths)))
        files = [top / key[:2] / f"{key[2:]}.u8" for key in keys]
        path_of = dict(zip(files, paths, strict=True))
        absent = [file for file in path_of if not (file.is_file() and file.stat().st_size == size)]
        if absent:
            _write_all(absent, [path_of[file] for file in absent], preprocessing)
        return [str(file) for file in files]


def _write_all(files: list[Path], paths: list[str], preprocessing: Preprocessing) -> None:
    encoded_paths = tf.constant([os.fsencode(path) for path in paths], tf.string)
    pictures = tf.data.Dataset.from_tensor_slices(encoded_paths).map(
        lambda path: preprocessing.fit(decode(tf.io.read_file(path))), num_parallel_calls=tf.data.AUTOTUNE
    )
    resized = zip(files, pictures.prefetch(8).as_numpy_iterator(), strict=True)
    for file, pixels in progress(resized, "filling the cache", total=len(files)):
        _write(file, pixels.tobytes())


def _content_key(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.blake2b(stream.read(), digest_size=16).hexdigest()


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=".partial-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(partial, file)
    except BaseException:
        os.unlink(partial)
        raise
