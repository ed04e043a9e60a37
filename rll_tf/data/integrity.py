"""What is wrong with a data set's files: corrupt pictures, and files with equal content."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import defaultdict

import numpy as np
import tensorflow as tf

from rll_tf.data.catalogue import Catalogue, counted, printable
from rll_tf.data.decode import decode
from rll_tf.progress import progress


class CorruptPictureError(ValueError):
    """A picture file can't be read or decoded; the message names it."""


def name_corrupt(catalogue: Catalogue, error: Exception) -> Exception:
    """Find which picture made a pipeline fail: TensorFlow's own message does not say.

    Returns:
        A `CorruptPictureError` that names the first bad picture and how many there are, or `error` itself
        if every picture decodes.
    """
    pictures = progress(range(len(catalogue)), "looking for corrupt pictures")
    bad = [reason for i in pictures if (reason := _unreadable(catalogue, i)) is not None]
    if not bad:
        return error
    others = f" ({len(bad) - 1} more like it)" if len(bad) > 1 else ""
    return CorruptPictureError(bad[0] + others)


def _unreadable(catalogue: Catalogue, index: int) -> str | None:
    """Why picture `index` can't be read or decoded, in one line that names it; None where it can."""
    path = printable(catalogue.paths[index])
    try:
        decode(catalogue.encoded(index))
    except tf.errors.InvalidArgumentError:
        return f"{path} is not a whole picture that TensorFlow can decode"
    except OSError as reason:
        return f"{path} can't be read ({reason.strerror})"
    return None


@dataclasses.dataclass(frozen=True)
class Skipped:
    """The pictures that were left out, and the classes that thereby vanished.

    Args:
        reasons: one line per picture, which names it.
        classes: names of the classes that have no picture left.
    """

    reasons: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def report(self) -> list[str]:
        """Lines for the end of a command: the count, each picture, each class."""
        if not self.reasons:
            return ["no picture was skipped"]
        lines = [
            f"skipped {counted(len(self.reasons), 'picture')}:",
            *(f"  {reason}" for reason in self.reasons),
        ]
        if self.classes:
            lines.append(
                f"no picture is left of {counted(len(self.classes), 'class')}: {', '.join(self.classes)}"
            )
        return lines


def skip_corrupt(catalogue: Catalogue, *, but_test: bool = False) -> tuple[Catalogue, Skipped]:
    """The catalogue without the pictures that can't be read or decoded.

    Every picture is decoded once beforehand. So a batch is filled from the other pictures of the class, what
    is skipped does not depend on when training meets it, and the same seed gives the same batches.

    Args:
        catalogue: the pictures.
        but_test: the splits that a model is tested on stay as they are, unopened.

    Returns:
        The catalogue, its splits renumbered, and what was left out of it.
    """
    if catalogue.pixels is not None:
        return catalogue, Skipped()
    paths = tf.constant([os.fsencode(path) for path in catalogue.paths], tf.string)

    def index_if_decodable(index: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([decode(tf.io.read_file(paths[index]))]):
            return tf.identity(index)

    is_good = np.zeros(len(catalogue), bool)
    if but_test:
        is_good[catalogue.test_indices] = True
    unknown = np.flatnonzero(~is_good)
    decodable = tf.data.Dataset.from_tensor_slices(unknown).map(
        index_if_decodable, num_parallel_calls=tf.data.AUTOTUNE
    )
    good = decodable.ignore_errors().as_numpy_iterator()
    is_good[list(progress(good, "decoding pictures", total=len(unknown)))] = True
    if is_good.all():
        return catalogue, Skipped()
    reasons = [_unreadable(catalogue, i) or printable(catalogue.paths[i]) for i in np.flatnonzero(~is_good)]
    kept = np.flatnonzero(is_good)
    if not kept.size:
        raise CorruptPictureError(f"{catalogue.spec} has no picture that can be read: {reasons[0]}")
    new_index = np.cumsum(is_good) - 1
    splits = {name: new_index[indices[is_good[indices]]] for name, indices in catalogue.splits.items()}
    gone = np.setdiff1d(catalogue.labels, catalogue.labels[kept])
    skipped = Skipped(tuple(reasons), tuple(catalogue.class_names[label] for label in gone))
    return dataclasses.replace(catalogue.take(kept), splits=splits), skipped


def duplicates(catalogue: Catalogue) -> list[list[int]]:
    """Groups of pictures whose files hold the same bytes, each two indices or more.

    Only files of equal size are read, which are few among photographs; those that can't be are skipped.
    """
    if catalogue.pixels is not None:
        return []
    by_size: dict[int, list[int]] = defaultdict(list)
    for index, path in enumerate(progress(catalogue.paths, "looking for copies")):
        try:
            by_size[os.stat(path).st_size].append(index)
        except OSError:
            continue
    by_content: dict[bytes, list[int]] = defaultdict(list)
    alike = [index for indices in by_size.values() if len(indices) > 1 for index in indices]
    for index in progress(alike, "comparing files of equal size"):
        try:
            content = catalogue.encoded(index)
        except OSError:
            continue
        by_content[hashlib.blake2b(content, digest_size=16).digest()].append(index)
    return sorted(group for group in by_content.values() if len(group) > 1)


def report_duplicates(catalogue: Catalogue) -> list[str]:
    """One line on files with equal content, one more where copies bear different labels."""
    groups = duplicates(catalogue)
    if not groups:
        return []

    def example(group: list[int]) -> str:
        return " = ".join(printable(catalogue.paths[index]) for index in group[:2])

    copies = sum(len(group) - 1 for group in groups)
    are = "is a copy" if copies == 1 else "are copies"
    lines = [f"{counted(copies, 'picture file')} {are} of another, such as {example(groups[0])}"]
    crossing = [group for group in groups if len(set(catalogue.labels[group])) > 1]
    if crossing:
        lie = "lies" if len(crossing) == 1 else "lie"
        lines.append(f"{len(crossing):,} of them {lie} in several classes, such as {example(crossing[0])}")
    return lines
