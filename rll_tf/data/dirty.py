"""What is wrong with a data set's files: corrupt pictures, and files that are there twice."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import defaultdict

import numpy as np
import tensorflow as tf

from rll_tf.data.catalogue import Catalogue, printable
from rll_tf.data.decode import decode
from rll_tf.data.pipeline import CorruptPictureError, unreadable


@dataclasses.dataclass(frozen=True)
class Skipped:
    """The pictures that were left out, and the classes that thereby vanished.

    Args:
        reasons: one line a picture, which names it.
        classes: names of the classes that have no picture left.
    """

    reasons: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def report(self) -> list[str]:
        """Lines for the end of a command: the count, each picture, each class."""
        if not self.reasons:
            return ["no picture was skipped"]
        lines = [f"skipped {len(self.reasons):,} pictures:", *(f"  {reason}" for reason in self.reasons)]
        if self.classes:
            lines.append(f"no picture is left of {len(self.classes):,} classes: {', '.join(self.classes)}")
        return lines


def skip_corrupt(catalogue: Catalogue) -> tuple[Catalogue, Skipped]:
    """The catalogue without the pictures that can't be read or decoded.

    Every picture is decoded once beforehand. So a batch is filled from the other pictures of the class, what
    is skipped does not depend on when training meets it, and the same seed gives the same batches.

    Returns:
        The catalogue, its splits renumbered, and what was left out of it.
    """
    if catalogue.pixels is not None:
        return catalogue, Skipped()
    paths = tf.constant([os.fsencode(path) for path in catalogue.paths], tf.string)

    def try_one(index: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([decode(tf.io.read_file(paths[index]))]):
            return tf.identity(index)

    good_ones = tf.data.Dataset.range(len(catalogue)).map(try_one, num_parallel_calls=tf.data.AUTOTUNE)
    is_good = np.zeros(len(catalogue), bool)
    for batch in good_ones.ignore_errors().batch(1024).as_numpy_iterator():
        is_good[batch] = True
    reasons = []
    for index in np.flatnonzero(~is_good):
        reason = unreadable(catalogue, index)
        if reason is None:  # it can be read now: a disk that came back
            is_good[index] = True
        else:
            reasons.append(reason)
    if not reasons:
        return catalogue, Skipped()
    kept = np.flatnonzero(is_good)
    if not kept.size:
        raise CorruptPictureError(f"{catalogue.spec} has no picture that can be read: {reasons[0]}")
    place = np.cumsum(is_good) - 1
    splits = {name: place[indices[is_good[indices]]] for name, indices in catalogue.splits.items()}
    gone = np.setdiff1d(catalogue.labels, catalogue.labels[kept])
    skipped = Skipped(tuple(reasons), tuple(catalogue.class_names[label] for label in gone))
    return dataclasses.replace(catalogue.take(kept), splits=splits), skipped


def duplicates(catalogue: Catalogue) -> list[list[int]]:
    """Groups of pictures whose files hold the same bytes, each two indices or more.

    Only files of equal size are read, which are few among photographs. Files that can't be read are passed
    over.
    """
    if catalogue.pixels is not None:
        return []
    by_size: dict[int, list[int]] = defaultdict(list)
    for index, path in enumerate(catalogue.paths):
        try:
            by_size[os.stat(path).st_size].append(index)
        except OSError:
            continue
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for indices in by_size.values():
        for index in indices if len(indices) > 1 else ():
            try:
                content = catalogue.encoded(index)
            except OSError:
                continue
            by_content[hashlib.blake2b(content, digest_size=16).digest()].append(index)
    return sorted(group for group in by_content.values() if len(group) > 1)


def report_duplicates(catalogue: Catalogue) -> list[str]:
    """One line on files that are there twice, one more where copies bear different labels."""
    groups = duplicates(catalogue)
    if not groups:
        return []

    def example(group: list[int]) -> str:
        return " = ".join(printable(catalogue.paths[index]) for index in group[:2])

    copies = sum(len(group) - 1 for group in groups)
    lines = [f"{copies:,} picture files are copies of another, such as {example(groups[0])}"]
    crossing = [group for group in groups if len(set(catalogue.labels[group])) > 1]
    if crossing:
        lines.append(f"{len(crossing):,} of them lie in several classes, such as {example(crossing[0])}")
    return lines
