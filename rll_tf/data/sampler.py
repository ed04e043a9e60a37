"""The C×K sampler: which pictures make up a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


class ClassBalancedBatches:
    """Index batches of C distinct classes × K pictures each; batch number `step` is a pure function.

    An epoch shuffles the classes and cuts them into batches of C; each class appears at most once in an
    epoch and the classes that do not fill a last batch are dropped, as in the authors' released code
    (the next epoch shuffles anew, so every class has the same chance). Within a batch a class shows K
    pictures drawn without replacement; a class with fewer than K shows all of them before any repeats.

    Batches are laid out class by class: positions [c*K, (c+1)*K) hold one class. Both shuffles are drawn
    from `(seed, epoch)` and `(seed, step)`, so the order is the same on every machine, differs from epoch
    to epoch, and can be taken up at any step without replaying the steps before it.

    Args:
        labels: [n] integers, the class of each picture.
        classes_per_batch: C, at least 1 and at most the number of classes.
        images_per_class: K, at least 1.
        seed: non-negative integer.

    Raises:
        ValueError: an argument is outside these bounds; the message says what was received.
    """

    def __init__(
        self, labels: npt.ArrayLike, classes_per_batch: int, images_per_class: int, seed: int
    ) -> None:
        labels = np.asarray(labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels must be [n] integers; got shape {labels.shape}, dtype {labels.dtype}")
        if images_per_class < 1:
            raise ValueError(f"images_per_class must be at least 1; got {images_per_class}")
        if seed < 0:
            raise ValueError(f"seed must not be negative; got {seed}")
        # Pictures sorted by class: class c's are order[starts[c]:starts[c + 1]].
        self._order = np.argsort(labels, kind="stable")
        _, counts = np.unique(labels, return_counts=True)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._classes = len(counts)
        if not 1 <= classes_per_batch <= self._classes:
            raise ValueError(
                "classes_per_batch must be at least 1 and at most the number of classes "
                f"({self._classes}); got {classes_per_batch}"
            )
        self.classes_per_batch = classes_per_batch
        self.images_per_class = images_per_class
        self.seed = seed
        self._epoch = -1
        self._shuffled: npt.NDArray[np.int64] = np.empty(0, np.int64)

    @property
    def batch_size(self) -> int:
        """N = C·K."""
        return self.classes_per_batch * self.images_per_class

    @property
    def batches_per_epoch(self) -> int:
        """How many whole batches of C classes the classes make."""
        return self._classes // self.classes_per_batch

    def __getitem__(self, step: int) -> npt.NDArray[np.int64]:
        """Batch `step` (0, 1, …, without end) as [C·K] picture indices."""
        if step < 0:
            raise IndexError(f"step must not be negative; got {step}")
        epoch, position = divmod(step, self.batches_per_epoch)
        if epoch != self._epoch:
            self._shuffled = np.random.default_rng([self.seed, 0, epoch]).permutation(self._classes)
            self._epoch = epoch
        first = position * self.classes_per_batch
        rng = np.random.default_rng([self.seed, 1, step])
        return np.concatenate(
            [self._draw(chosen, rng) for chosen in self._shuffled[first : first + self.classes_per_batch]]
        )

    def __iter__(self) -> Iterator[npt.NDArray[np.int64]]:
        """All batches from step 0, without end."""
        return self.starting_at(0)

    def starting_at(self, step: int) -> Iterator[npt.NDArray[np.int64]]:
        """All batches from `step` on, without end."""
        while True:
            yield self[step]
            step += 1

    def _draw(self, chosen: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        pictures = self._order[self._starts[chosen] : self._starts[chosen + 1]]
        if len(pictures) >= self.images_per_class:
            return rng.choice(pictures, self.images_per_class, replace=False)
        return np.resize(rng.permutation(pictures), self.images_per_class)


def class_balanced_batches(
    labels: npt.ArrayLike, classes_per_batch: int, images_per_class: int, seed: int
) -> ClassBalancedBatches:
    """A deterministic, restartable sampler of index batches; see `ClassBalancedBatches`."""
    return ClassBalancedBatches(labels, classes_per_batch, images_per_class, seed)
