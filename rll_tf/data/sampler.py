"""The C×K sampler: which pictures make up a batch."""

from __future__ import annotations

import itertools
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
    to epoch, and can be resumed at any step without replaying the steps before it.

    Several workers share a batch: worker i of w takes the i-th w-th of its classes. Each worker has its own
    sampler of the same labels and seed, they need not communicate, and their parts side by side are the batch
    that a single worker would have, with the same C distinct classes × K.

    Args:
        labels: [n] integers, the class of each picture.
        classes_per_batch: C, at least 1 and at most the number of classes.
        images_per_class: K, at least 1.
        seed: non-negative integer.
        shard: (i, w), which worker this is of how many; w divides C.

    Raises:
        ValueError: an argument is outside these bounds; the message says what was received.
    """

    def __init__(
        self,
        labels: npt.ArrayLike,
        classes_per_batch: int,
        images_per_class: int,
        seed: int,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        labels = np.asarray(labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels must be [n] integers; got shape {labels.shape}, dtype {labels.dtype}")
        if images_per_class < 1:
            raise ValueError(f"images_per_class must be at least 1; got {images_per_class}")
        if seed < 0:
            raise ValueError(f"seed must not be negative; got {seed}")
        # Pictures sorted by class: class c's are order[starts[c]:starts[c + 1]].
        self._order: npt.NDArray[np.int64] = np.argsort(labels, kind="stable")
        in_order = labels[self._order]
        begins = np.flatnonzero(in_order[1:] != in_order[:-1]) + 1
        self._starts = np.concatenate([[0], begins, [len(labels)]])
        self._classes = len(begins) + 1 if len(labels) else 0
        if not 1 <= classes_per_batch <= self._classes:
            raise ValueError(
                "classes_per_batch must be at least 1 and at most the number of classes "
                f"({self._classes}); got {classes_per_batch}"
            )
        index, workers = shard
        if not 0 <= index < workers:
            raise ValueError(f"shard must be (i, w) with 0 ≤ i < w; got {shard}")
        if classes_per_batch % workers:
            raise ValueError(
                f"classes_per_batch must be a multiple of the number of workers ({workers}), so that each "
                f"has as many; got {classes_per_batch}"
            )
        self.shard = shard
        self.classes_per_batch = classes_per_batch
        self.images_per_class = images_per_class
        self.seed = seed
        # An epoch and its order of classes.
        self._shuffled: tuple[int, npt.NDArray[np.int64]] = -1, np.arange(0)

    @property
    def batch_size(self) -> int:
        """Pictures in this worker's part of a batch: N = C·K for a single worker."""
        return self.global_batch_size // self.shard[1]

    @property
    def global_batch_size(self) -> int:
        """N = C·K, of all workers together."""
        return self.classes_per_batch * self.images_per_class

    @property
    def first(self) -> int:
        """The position in the global batch of this worker's first picture."""
        return self.shard[0] * self.batch_size

    @property
    def batches_per_epoch(self) -> int:
        """How many whole batches of C classes the classes make."""
        return self._classes // self.classes_per_batch

    def __getitem__(self, step: int) -> npt.NDArray[np.int64]:
        """Batch `step` (0, 1, …, without end), this worker's part of it, as picture indices."""
        if step < 0:
            raise IndexError(f"step must not be negative; got {step}")
        epoch, position = divmod(step, self.batches_per_epoch)
        first = position * self.classes_per_batch
        classes = self._class_order(epoch)[first : first + self.classes_per_batch]
        # All classes draw, also those of other workers, since they share the generator.
        rng = np.random.default_rng([self.seed, 1, step])
        whole = np.concatenate([self._draw(chosen, rng) for chosen in classes])
        return whole[self.first : self.first + self.batch_size]

    def __iter__(self) -> Iterator[npt.NDArray[np.int64]]:
        """All batches from step 0, without end."""
        return map(self.__getitem__, itertools.count())

    def _class_order(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._shuffled[0] != epoch:
            rng = np.random.default_rng([self.seed, 0, epoch])
            self._shuffled = epoch, rng.permutation(self._classes)
        return self._shuffled[1]

    def _draw(self, chosen: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        pictures = self._order[self._starts[chosen] : self._starts[chosen + 1]]
        if len(pictures) >= self.images_per_class:
            return rng.choice(pictures, self.images_per_class, replace=False)
        return np.resize(rng.permutation(pictures), self.images_per_class)


class_balanced_batches = ClassBalancedBatches
