"""The catalogue: which pictures there are, which class each belongs to, and which split."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image


def printable(path: str) -> str:
    r"""A path for people and for JSON: bytes that are not UTF-8 stand as `\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def counted(number: int, noun: str) -> str:
    """A number and its noun: `1 class`, `2 classes`, `3,000 pictures`, `4 queries`."""
    if number != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("ry") else noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun}"


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """An ordered list of n labelled pictures; the same for every data set.

    Args:
        spec: what `open_dataset` opened, e.g. `"glyphs"` or `"folder:/birds"`.
        paths: n names, one per picture. Files' paths where `pixels` is None, otherwise made-up names.
        labels: [n] int64, indices into `class_names`.
        class_names: one name a class, in a fixed order. A class may have no picture in a selection.
        splits: split name -> picture indices. Splits share no class, but In-shop's query and gallery.
        pixels: [n, height, width, channels] uint8 where the pictures are in memory, otherwise None.
    """

    spec: str
    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    splits: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    pixels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.labels):
            raise ValueError(
                f"every picture needs one label: got {len(self.paths)} paths, {len(self.labels)} labels"
            )
        if self.pixels is not None and len(self.pixels) != len(self.labels):
            raise ValueError(
                f"every picture needs one label: got {len(self.pixels)} pictures, {len(self.labels)} labels"
            )

    @classmethod
    def from_arrays(
        cls, pictures: npt.ArrayLike, labels: npt.ArrayLike, splits: npt.ArrayLike | None = None
    ) -> Catalogue:
        """A catalogue of pictures in memory.

        Args:
            pictures: [n, height, width] or [n, height, width, 1 or 3] uint8, of 0 to 255.
            labels: [n] integers or strings.
            splits: [n] strings, such as `"train"` and `"test"`, `""` for a picture in none; None: no splits.

        Raises:
            ValueError: the arrays don't have this form, or two splits share a class.
        """
        pixels = np.asarray(pictures)
        if pixels.ndim == 3:
            pixels = pixels[..., np.newaxis]
        if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or pixels.dtype != np.uint8:
            raise ValueError(
                "pictures must be [n, height, width, 1 or 3] uint8; "
                f"got shape {pixels.shape}, dtype {pixels.dtype}"
            )
        names = tuple(f"array/{index}" for index in range(len(pixels)))
        return cls(f"{len(pixels)} arrays", names, *numbered(labels), _split(labels, splits), pixels)

    @classmethod
    def from_files(
        cls,
        paths: Iterable[str | os.PathLike[str]],
        labels: npt.ArrayLike,
        splits: npt.ArrayLike | None = None,
    ) -> Catalogue:
        """A catalogue of picture files, such as those of columns of a pandas frame.

        Args:
            paths: n files.
            labels: [n] integers or strings.
            splits: [n] strings, such as `"train"` and `"test"`, `""` for a picture in none; None: no splits.

        Raises:
            ValueError: there are not as many of each, or two splits share a class.
        """
        files = tuple(os.fspath(path) for path in paths)
        return cls(f"{len(files)} files", files, *numbered(labels), _split(labels, splits))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def class_count(self) -> int:
        """How many classes have a picture here."""
        return len(np.unique(self.labels))

    @property
    def classes(self) -> set[str]:
        """The names of the classes that have a picture here."""
        return {self.class_names[label] for label in np.unique(self.labels)}

    def select(self, split: str | None) -> Catalogue:
        """The pictures of one split, labels unchanged; `None` and `"all"` are the whole catalogue.

        Raises:
            ValueError: there is no such split.
        """
        if split in (None, "all"):
            return self
        if split not in self.splits:
            known = ", ".join([*self.splits, "all"])
            raise ValueError(f"{self.spec} has no split {split!r}; it has: {known}")
        return self.take(self.splits[split])

    def take(self, indices: np.ndarray) -> Catalogue:
        """The pictures at `indices`, in that order, without splits."""
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[i] for i in indices),
            labels=self.labels[indices],
            splits={},
            pixels=None if self.pixels is None else self.pixels[indices],
        )

    def set_apart(self, share: float) -> Catalogue:
        """Split the classes at random into `train` and `test`; the same classes always give the same split.

        Args:
            share: of the classes to test on, from 0 to 1; at least two are, and two are left to train on.

        Returns:
            This catalogue with both splits; unchanged where it has splits of its own, or `share` is 0.

        Raises:
            ValueError: there are fewer than four classes.
        """
        if self.splits or not share:
            return self
        classes = np.unique(self.labels)
        if len(classes) < 4:
            raise ValueError(
                f"setting test classes apart needs at least 4 classes; {self.spec} has {len(classes)}"
                f"{folder_hint(self.spec)}"
            )
        shuffled = np.random.default_rng(len(classes)).permutation(classes)
        test = np.isin(self.labels, shuffled[: min(max(2, round(share * len(classes))), len(classes) - 2)])
        return dataclasses.replace(
            self, splits={"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}
        )

    def without_test(self) -> Catalogue:
        """The pictures to train and validate on: all but the splits `test`, `query` and `gallery`."""
        test = self.test_indices
        return self.take(np.setdiff1d(np.arange(len(self)), test)) if test.size else self

    @property
    def test_indices(self) -> np.ndarray:
        """Of the splits `test`, `query` and `gallery`."""
        test = [self.splits[name] for name in ("test", "query", "gallery") if name in self.splits]
        return np.concatenate([np.empty(0, np.int64), *test])

    def hold_out(self, share: float, seed: int) -> Catalogue:
        """Split the training classes at random into `train` and `validation`.

        The training classes are those of the splits `train` and `validation` together where there are such,
        otherwise all; other splits stay as they are, so that nobody chooses a model on the test classes.
        Only classes with at least two pictures are held out, as a single picture has nothing to find. Two
        classes at least are held out, and two kept; where that can't be, or `share` is 0, none are.

        Args:
            share: of the classes to hold out, from 0 to 1.
            seed: of the choice.

        Returns:
            This catalogue with the splits `train` and, where classes were held out, `validation`.
        """
        pool, classes, findable = self._training_classes(seed)
        held = min(max(2, round(share * classes)), classes - 2, len(findable)) if share > 0 else 0
        return self._validating_on(pool, findable[: held if held >= 2 else 0])

    def fold(self, number: int, folds: int, seed: int) -> Catalogue:
        """Split the training classes as `hold_out` does, but for cross-validation.

        The same seed deals the classes into as many parts of nearly equal size; every class with at least
        two pictures is held out in exactly one fold, a class with a single picture in none.

        Args:
            number: which fold, from 1 to `folds`.
            folds: how many there are, at least 2.
            seed: of the deal.

        Returns:
            This catalogue with the splits `train` and `validation`.

        Raises:
            ValueError: there is no such fold, or there are fewer than two classes for each.
        """
        if folds < 2 or not 1 <= number <= folds:
            raise ValueError(f"a fold must be one of 1 to K, with K at least 2; got {number} of {folds}")
        pool, _, findable = self._training_classes(seed)
        if len(findable) < 2 * folds:
            raise ValueError(
                f"{folds} folds need at least {2 * folds} classes of two pictures or more; "
                f"{self.spec} has {len(findable)} to train on"
            )
        return self._validating_on(pool, findable[number - 1 :: folds])

    def _training_classes(self, seed: int) -> tuple[np.ndarray, int, np.ndarray]:
        """The pictures to train and validate on, their number of classes, those to hold out shuffled."""
        pool = np.arange(len(self))
        if "train" in self.splits:
            parts = [self.splits[name] for name in ("train", "validation") if name in self.splits]
            pool = np.sort(np.concatenate(parts))
        classes, counts = np.unique(self.labels[pool], return_counts=True)
        rng = np.random.default_rng([seed, len(classes)])
        return pool, len(classes), rng.permutation(classes[counts > 1])

    def _validating_on(self, pool: np.ndarray, held: np.ndarray) -> Catalogue:
        is_held = np.isin(self.labels[pool], held)
        others = {name: value for name, value in self.splits.items() if name not in ("train", "validation")}
        splits = {"train": pool[~is_held]}
        if len(held):
            splits["validation"] = pool[is_held]
        return dataclasses.replace(self, splits={**splits, **others})

    def encoded(self, index: int) -> bytes:
        """Picture `index` as the bytes of a picture file (a PNG where it lives in memory)."""
        if self.pixels is None:
            with open(os.fsencode(self.paths[index]), "rb") as file:
                return file.read()
        buffer = io.BytesIO()
        Image.fromarray(self.pixels[index].squeeze()).save(buffer, format="PNG")
        return buffer.getvalue()


def folder_hint(spec: str) -> str:
    """What the error adds where a data set has too few classes: how a folder has more."""
    return ": a folder needs one directory per class" if spec.startswith("folder:") else ""


def numbered(labels: npt.ArrayLike) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as indices, and the names of the classes."""
    names, numbers = np.unique(np.asarray(labels), return_inverse=True)
    return numbers.reshape(-1).astype(np.int64), tuple(map(str, names))


def _split(labels: npt.ArrayLike, splits: npt.ArrayLike | None) -> dict[str, np.ndarray]:
    """Split name -> indices."""
    if splits is None:
        return {}
    labels, splits = np.asarray(labels), np.asarray(splits, str)
    if labels.shape != splits.shape:
        raise ValueError(f"every picture needs one split: got {len(labels)} labels, {len(splits)} splits")
    found = {str(name): np.flatnonzero(splits == name) for name in dict.fromkeys(splits.tolist()) if name}
    for first, second in itertools.combinations(found, 2):
        shared = np.intersect1d(labels[found[first]], labels[found[second]])
        if len(shared) and {first, second} != {"query", "gallery"}:
            raise ValueError(
                f"splits must share no class (but query and gallery): {first} and {second} share {shared[0]}"
            )
    return found
