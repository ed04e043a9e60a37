"""The catalogue: which pictures there are, which class each belongs to, and which split."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Mapping

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """An ordered list of n labelled pictures; the same for every data set.

    Args:
        spec: what `open_dataset` was asked for, e.g. `"glyphs"` or `"folder:/birds"`.
        paths: n names, one a picture. Files' paths where `pixels` is None, otherwise made-up names.
        labels: [n] int64, indices into `class_names`.
        class_names: one name a class, in a fixed order. A class may have no picture in a selection.
        splits: split name -> picture indices. Splits share no class.
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

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def class_count(self) -> int:
        """How many classes have a picture here."""
        return len(np.unique(self.labels))

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

    def hold_out(self, share: float, seed: int) -> Catalogue:
        """Split the classes at random into `train` and `validation`.

        Only classes with at least two pictures are held out, as a single picture has nothing to find. Two
        classes at least are held out, and two kept; where that can't be, or `share` is 0, none are.

        Args:
            share: of the classes to hold out, from 0 to 1.
            seed: of the choice.

        Returns:
            This catalogue with the splits `train` and, where classes were held out, `validation`.
        """
        classes, counts = np.unique(self.labels, return_counts=True)
        findable = classes[counts > 1]
        held = min(max(2, round(share * len(classes))), len(classes) - 2, len(findable)) if share > 0 else 0
        if held < 2:
            return dataclasses.replace(self, splits={"train": np.arange(len(self))})
        chosen = np.random.default_rng([seed, len(classes)]).permutation(findable)[:held]
        is_held = np.isin(self.labels, chosen)
        splits = {"train": np.flatnonzero(~is_held), "validation": np.flatnonzero(is_held)}
        return dataclasses.replace(self, splits=splits)

    def encoded(self, index: int) -> bytes:
        """Picture `index` as the bytes of a picture file (a PNG where it lives in memory)."""
        if self.pixels is None:
            with open(os.fsencode(self.paths[index]), "rb") as file:
                return file.read()
        buffer = io.BytesIO()
        Image.fromarray(self.pixels[index].squeeze()).save(buffer, format="PNG")
        return buffer.getvalue()
