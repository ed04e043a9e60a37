"""Pictures of any size and kind, made ready to be shown side by side."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

GREY_CHANNELS, RGB_CHANNELS = 1, 3
# Small or flat pictures stay lossless; photographs above this many pixels become JPEG on a page.
LOSSLESS_PIXELS = 64 * 64


def as_picture(pixels: ArrayLike | Image.Image) -> Image.Image:
    """An RGB picture from [h, w], [h, w, 1] or [h, w, 3]: uint8, bool, or floats from 0 to 1.

    Raises:
        ValueError: the shape or the numbers are none of these.
    """
    if isinstance(pixels, Image.Image):
        return ImageOps.exif_transpose(pixels).convert("RGB")
    array = np.asarray(pixels)
    if array.ndim == RGB_CHANNELS and array.shape[2] == GREY_CHANNELS:
        array = array[:, :, 0]
    if 0 in array.shape or array.ndim not in (2, 3) or (array.ndim == RGB_CHANNELS != array.shape[2]):
        raise ValueError(f"a picture must be [h, w], [h, w, 1] or [h, w, 3]: got shape {array.shape}")
    if array.dtype.kind in "fb":
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(f"floating pixels must be 0 to 1: got {array.min():g} to {array.max():g}")
        array = np.round(array.astype(np.float64) * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8, bool or floats from 0 to 1: got dtype {array.dtype}")
    return Image.fromarray(array).convert("RGB")


def fit(picture: Image.Image, side_px: int) -> Image.Image:
    """The picture with its longer side `side_px` or a little less, its aspect ratio kept.

    A small one is enlarged by a whole factor without smoothing, so that its pixels stay square and crisp; one
    that would not fit twice is resized with antialiasing.
    """
    longer = max(picture.size)
    factor = side_px // longer
    if factor > 1 or longer == side_px:
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    size = [max(1, round(side * side_px / longer)) for side in picture.size]
    return picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def data_uri(picture: Image.Image) -> str:
    """The picture inside a `data:` address, for a page that needs no other file."""
    buffer = io.BytesIO()
    lossless = picture.width * picture.height <= LOSSLESS_PIXELS
    if lossless:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=85)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
