"""The numbers of the tools themselves: values and gradients of TensorFlow Addons and others, from a file.

Which tool, version and call gave each is in the file's index; how they were made stands beside the file.
"""

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FILE = "reference/losses_golden_seed7.npz"
# Relative. Addons and tf.contrib computed in float32, the others in float64 on float32 inputs.
FLOAT32, FLOAT64 = 2e-6, 1e-10


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of one tool: `case["labels"]`, `case["value"]` … are its arrays."""

    loss: str
    name: str
    tool: str
    arguments: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def __getitem__(self, field: str) -> np.ndarray:
        return self.arrays[field]

    @property
    def dtype(self) -> type[np.floating]:
        """The type that the tool computed in."""
        return np.float32 if self.tool in {"tfa", "contrib"} else np.float64

    @property
    def tolerance(self) -> float:
        """How near, relative to the largest number, the library must come when it computes in `dtype`."""
        return FLOAT32 if self.dtype == np.float32 else FLOAT64


@functools.cache
def _cases() -> list[tuple[Case, bool]]:
    """Every case of the file, and whether it is one of the edge."""
    with np.load(Path(os.environ["RLL_SHARED"], FILE), allow_pickle=False) as file:
        entries = [json.loads(str(entry)) for entry in file["index"]]
        return [
            (
                Case(
                    loss=entry["loss"],
                    name=entry["case"],
                    tool=entry["tool"],
                    arguments=entry["arguments"],
                    arrays={
                        field: file[f"{entry['loss']}/{entry['case']}/{field}"] for field in entry["fields"]
                    },
                ),
                entry["edge"],
            )
            for entry in entries
        ]


def golden(loss, *prefixes, edge=False):
    """Parameters of a test: the cases of a loss whose names begin so ("tfa", "pml" …; all by default).

    A single skipped parameter where RLL_SHARED is unset.
    """
    if not os.environ.get("RLL_SHARED"):
        skip = pytest.mark.skip(reason="RLL_SHARED is unset: the golden numbers are elsewhere")
        return [pytest.param(None, marks=skip)]
    chosen = [
        case
        for case, at_the_edge in _cases()
        if case.loss == loss and at_the_edge == edge and case.name.startswith(prefixes or "")
    ]
    assert chosen, f"no golden case of {loss} begins with {prefixes}"
    return [pytest.param(case, id=case.name) for case in chosen]


def difference(found, expected) -> float:
    """The largest difference, relative to the largest number expected, or to 1 where that is smaller."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.max(np.abs(found - expected)) / max(1.0, np.max(np.abs(expected))))
