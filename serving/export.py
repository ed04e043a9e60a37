"""From a trained model to a folder that TensorFlow Serving loads."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2  # has no public name

from rll_tf.data import Preprocessing
from serving.any_model import as_embedding_model
from serving.check import check
from serving.guard import Limits
from serving.publish import drafting, make_base, publish
from serving.search import PackedGallery
from serving.signatures import PIXELS, signatures
from serving.versions import write_config, write_manifest
from serving.warmup import write_warmup

METADATA_FILE = Path("assets.extra", "rll_tf.json")
WEIGHTS_SHA256 = "weights_sha256"


def export(
    model: keras.Model,
    preprocessing: Preprocessing,
    to: Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    limits: Limits | None = None,
    gallery: PackedGallery | None = None,
    gallery_level: str | None = None,
) -> Path:
    """Write `to/<version>/`, a SavedModel of any Keras model that takes picture files' bytes, and check it.

    Its signatures are those of `serving.signatures.signatures`: `serving_default`, one of each level's name,
    `pixels`, and `search` where a gallery is given. Decoding, resizing and normalisation are inside the
    graph, as are the checks for what is no picture or too large. A warm-up request for each signature lies
    where the server reads it.

    The artefact is written under a temporary name, loaded in a fresh process that does not have this
    package, compared with `model` on pictures of noise, and only then moved to the next free version, so
    that a server watching `to` never sees half a model or a wrong one. The SHA-256 of its files lie in it,
    and `to/models.pbtxt` says which versions a server loads.

    Args:
        model: from [B, input_px, input_px, 3 or 1] to an embedding [B, d], or to several in a list or a
            dictionary, see `as_embedding_model`; they are brought to unit norm.
        preprocessing: what the model was trained with.
        to: the folder of versions, made if need be. It and the version are readable by all.
        metadata: kept with the artefact, in `assets.extra/rll_tf.json`, beside `levels`, `preprocessing`,
            `limits`, `signatures` and `weights_sha256`.
        limits: the largest request that is accepted.
        gallery: what `search` searches.
        gallery_level: the level that its vectors are embeddings of; None for all concatenated.

    Returns:
        The folder of the new version.

    Raises:
        RuntimeError: the artefact does not load in a fresh process, or its outputs differ from the model's.
        OSError: the folder can't be written.
        ValueError: the model gives no embeddings, or does not take pictures of that size.
    """
    model = as_embedding_model(model, preprocessing)
    limits = Limits() if limits is None else limits
    make_base(to)
    with drafting(to) as draft:
        with _writing(to):
            _write(model, preprocessing, draft, limits, gallery, gallery_level)
        check(model, preprocessing, limits, draft, gallery, gallery_level)
        described = describe_signatures(draft)
        information = {
            **(metadata or {}),
            WEIGHTS_SHA256: weights_sha256(model, preprocessing),
            "levels": {level: int(output.shape[-1]) for level, output in model.output.items()},
            "preprocessing": dataclasses.asdict(preprocessing),
            "limits": dataclasses.asdict(limits),
            "signatures": described,
        }
        with _writing(to):
            write_warmup(draft, _warmup_requests(described, preprocessing, limits))
            (draft / METADATA_FILE).write_text(json.dumps(information, indent=2) + "\n", encoding="utf-8")
            write_manifest(draft)
            version = publish(draft, to)
            write_config(to)
            return version


def weights_sha256(model: keras.Model, preprocessing: Preprocessing) -> str:
    """What tells models apart that embed differently: of the weights, in order, and the preprocessing."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(preprocessing), sort_keys=True).encode())
    for values in model.get_weights():
        digest.update(f"{values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _writing(to: Path) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:  # TensorFlow's own error for a full disk
        reason = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]$", "", error.message)  # without the graph's node
        raise OSError(f"{to} can't be written: {reason}") from error
    except OSError as error:
        if error.filename is None:  # an error of a write names no file
            error.filename = str(to)
        raise


def describe_signatures(folder: Path) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Signature -> `inputs` or `outputs` -> name -> `dtype` and `shape` (None: free)."""
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return {
        name: {
            side: {
                key: {
                    "dtype": tf.as_dtype(tensor.dtype).name,
                    "shape": tf.TensorShape(tensor.tensor_shape).as_list(),
                }
                for key, tensor in sorted(tensors.items())
            }
            for side, tensors in (("inputs", signature.inputs), ("outputs", signature.outputs))
        }
        for name, signature in sorted(saved.meta_graphs[0].signature_def.items())
        if not name.startswith("__")  # initialisation
    }


def _write(
    model: keras.Model,
    preprocessing: Preprocessing,
    folder: Path,
    limits: Limits,
    gallery: PackedGallery | None,
    gallery_level: str | None,
) -> None:
    archive = keras.export.ExportArchive()
    archive.track(model)
    functions = signatures(model, preprocessing, limits, gallery, gallery_level)
    for name, (function, specification) in functions.items():
        archive.add_endpoint(name, function, input_signature=[specification])
    if gallery is not None:
        archive.add_variable_collection("gallery", gallery.variables)
    archive.write_out(str(folder), verbose=False)


def _warmup_requests(
    described: Mapping[str, Any], preprocessing: Preprocessing, limits: Limits
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """One request a signature, of one picture of noise."""
    side = preprocessing.resize_px
    pixels = np.random.default_rng(0).integers(0, 256, [1, side, side, 3], np.uint8)
    file_side = min(side, int(limits.max_pixels**0.5))
    images = np.array([tf.io.encode_png(pixels[0, :file_side, :file_side]).numpy()], object)
    return [
        (name, {"pixels": pixels} if name == PIXELS else {"images": images}) for name in sorted(described)
    ]
