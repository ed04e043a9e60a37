"""The builders of tensorflow-datasets, where their downloads still work."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rll_tf.data import cars196, cub200, sop
from rll_tf.data.catalogue import Catalogue
from rll_tf.data.layout import Counts, check, split_by_class_id
from rll_tf.data.paths import dataset_path
from rll_tf.progress import progress

# Builder -> counts to assert. Their own splits are for classification; ours are by class, in class order.
COUNTS: dict[str, Mapping[str, Counts]] = {
    "caltech_birds2011": cub200.COUNTS,
    "cars196": cars196.COUNTS,
    "stanford_online_products": sop.COUNTS,
}


def tfds(name: str, expected: Mapping[str, Counts] | None = None) -> Catalogue:
    """Catalogue a tensorflow-datasets builder, e.g. `cars196` or `caltech_birds2011:0.1.1`.

    The builder downloads and prepares itself where it can. Its pictures' files are then unpacked once,
    unchanged, below `$RLL_DATASETS/tfds/`, so that they are read like those of other data sets.

    Args:
        name: of the builder; it must give `image`, and `label` or `class_id`.
        expected: the counts to assert; those published for the benchmarks that are known here.

    Returns:
        A catalogue of all the builder's splits together. The benchmarks are split by class, the first
        classes for "train", the others for "test"; any other data set has no splits.

    Raises:
        ValueError: tensorflow-datasets is not installed, has no such builder, can't prepare it, or gives
            neither `image` nor `label`; or counts differ from `expected`.
    """
    builder = _builder(name)
    folder = dataset_path("tfds") / str(builder.info.full_name).replace("/", "-")
    if not (folder / "pictures.json").is_file():
        _unpack(name, builder, folder)
    pictures = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))
    expected = COUNTS.get(builder.name, {}) if expected is None else expected
    ids, labels = np.unique(np.array(pictures["labels"], np.int64), return_inverse=True)
    names = pictures["class_names"]
    labels = labels.astype(np.int64)
    catalogue = Catalogue(
        spec=f"tfds:{name}",
        paths=tuple(str(folder / file) for file in pictures["files"]),
        labels=labels,
        class_names=tuple(names[i] if i < len(names) else str(i) for i in ids.tolist()),
        splits=split_by_class_id(f"tfds:{name}", labels, expected) if expected else {},
    )
    return check(f"tfds:{name}", catalogue, expected, folder)


def _builder(name: str) -> Any:
    """The prepared builder; whatever goes wrong in it (a dead address, a changed archive) is one line."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ValueError(
            "tfds:NAME needs the package tensorflow-datasets: pip install 'rll_tf[datasets]' "
            f"(importing it failed: {error})"
        ) from error
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # offline it would warn of every attempt
    try:
        builder = tensorflow_datasets.builder(name)
        builder.download_and_prepare()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"tensorflow-datasets can't prepare {name!r}: {type(error).__name__}: {reason}"
        ) from error
    return builder


def _unpack(name: str, builder: Any, folder: Path) -> None:
    """Write the pictures' files and `pictures.json`, in one move once all are written."""
    from tensorflow_datasets import decode

    features = builder.info.features
    label = next((key for key in ("label", "class_id") if key in features), None)
    if label is None or "image" not in features:
        raise ValueError(f"tfds:{name} must give image and label or class_id; it gives {', '.join(features)}")
    partial = folder.with_name(f"partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    files: list[str] = []
    labels: list[int] = []
    for split in sorted(builder.info.splits):
        dataset = builder.as_dataset(
            split=split, shuffle_files=False, decoders={"image": decode.SkipDecoding()}
        )
        for example in progress(dataset.as_numpy_iterator(), f"unpacking {split}"):
            suffix = ".png" if example["image"].startswith(b"\x89PNG") else ".jpg"
            file = f"{len(files) // 1000:05d}/{len(files):08d}{suffix}"
            (partial / file).parent.mkdir(exist_ok=True)
            (partial / file).write_bytes(example["image"])
            files.append(file)
            labels.append(int(example[label]))
    names = list(getattr(features[label], "names", None) or [])
    description = {"files": files, "labels": labels, "class_names": names}
    (partial / "pictures.json").write_text(json.dumps(description), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
