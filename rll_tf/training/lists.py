"""Ranked lists of a catalogue's pictures, as a picture file."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from rll_tf.data import Catalogue
from rll_tf.evaluation import draw_ranked_lists, pick_ranked_lists
from rll_tf.evaluation.pictures import as_picture


def draw_lists(
    file: str | os.PathLike[str], embeddings: np.ndarray, pictures: Catalogue, title: str, subtitle: str
) -> Path:
    """Write a PNG of some queries' nearest neighbours, about as many right as wrong ones, under class names.

    Args:
        file: the PNG.
        embeddings: [n, d].
        pictures: the n pictures.
        title: the heading.
        subtitle: the line below it.
    """
    lists = pick_ranked_lists(embeddings, pictures.labels)
    return draw_ranked_lists(
        file,
        [open_picture(pictures, index) for index in lists.queries],
        [[open_picture(pictures, index) for index in row] for row in lists.neighbours],
        lists.correct,
        distances=lists.distances,
        query_captions=[class_name(pictures, index) for index in lists.queries],
        neighbour_captions=[[class_name(pictures, index) for index in row] for row in lists.neighbours],
        title=title,
        subtitle=subtitle,
    )


def class_name(pictures: Catalogue, index: int) -> str:
    """Of a picture's class, on one line."""
    return " ".join(pictures.class_names[pictures.labels[index]].split())


def open_picture(pictures: Catalogue, index: int) -> Image.Image:
    """As it is on disk, upright."""
    return as_picture(Image.open(io.BytesIO(pictures.encoded(index))))
