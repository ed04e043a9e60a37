"""What the page at `/` asks for: a picture's nearest neighbours, with their thumbnails."""

from __future__ import annotations

import base64
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from serving.client import SEARCH_SIGNATURE, parse_rejection
from serving.development.errors import StatusError, invalid
from serving.development.servable import Servable

PAGE_FILE = Path(__file__).with_name("page.html")
TRY_PATH = "/try"
THUMBNAIL_PX = 192


def find_neighbours(servable: Servable, picture: bytes) -> dict[str, Any]:
    """The version, the milliseconds, and the neighbours of a picture file's bytes, nearest first.

    A neighbour has its `distance`, `class`, `path` and `thumbnail`, a data URL, or null where the gallery's
    picture is no file that this machine can read.

    Raises:
        StatusError: the model has no gallery, or rejects the picture.
    """
    if SEARCH_SIGNATURE not in servable.signatures:
        raise invalid("this model has no gallery: rll export --gallery FILE.npz packs one")
    began = time.perf_counter()
    try:
        found = servable.run(servable.signature(SEARCH_SIGNATURE), {"images": np.array([picture], object)})
    except StatusError as error:
        raise invalid(_reason(error.message)) from error
    taken_ms = 1000 * (time.perf_counter() - began)
    rows = zip(found["distances"][0], found["class_names"][0], found["paths"][0], strict=True)
    return {
        "version": servable.version,
        "milliseconds": round(taken_ms, 1),
        "neighbours": [
            {
                "distance": float(distance),
                "class": name.decode("utf-8", "replace"),
                "path": path.decode("utf-8", "replace"),
                "thumbnail": _thumbnail(path),
            }
            for distance, name, path in rows
        ],
    }


def _reason(message: str) -> str:
    """The model's words about a picture, without the graph's node and the index, which is 0."""
    index, reason = parse_rejection(message)
    return reason if index is None else f"a picture {reason}"


def _thumbnail(path: bytes) -> str | None:
    try:
        with Image.open(os.fsdecode(path)) as image:
            image.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
