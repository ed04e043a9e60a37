"""Single entries of a shuffled range, without shuffling the range."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Up to here a range is shuffled outright, exactly uniformly: that takes less than a millisecond.
SMALL = 1 << 15
_ROUNDS = 6
_MIX = np.uint64(0x9E3779B97F4A7C15)


def shuffled(count: int, key: tuple[int, ...], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Entries `positions` of a permutation of range(count) that `key` decides.

    A large range is permuted by a Feistel network, a bijection of the numbers of 2·h bits, applied again to
    what lands beyond `count` (on average less than four times): so the cost is that of `positions`, however
    large the range is, and each entry can be had without the others.

    Args:
        count: length of the range.
        key: non-negative integers.
        positions: [p], each from 0 to count - 1.

    Returns:
        [p] distinct numbers where the positions are distinct.
    """
    rng = np.random.default_rng(key)
    if count <= SMALL:
        return rng.permutation(count)[positions]
    half = np.uint64((int(count - 1).bit_length() + 1) // 2)
    keys = rng.integers(0, 2**64, _ROUNDS, np.uint64)
    values = positions.astype(np.uint64)
    outside: npt.NDArray[np.bool_] = np.ones(len(values), bool)
    while outside.any():
        values[outside] = _feistel(values[outside], half, keys)
        outside = values >= count
    return values.astype(np.int64)


def _feistel(
    values: npt.NDArray[np.uint64], half: np.uint64, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        # A multiplicative hash: its upper bits depend on all of the right half and of the key.
        mixed = (right ^ key) * _MIX
        mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIX
        left, right = right, left ^ ((mixed >> np.uint64(32)) & mask)
    return (left << half) | right
