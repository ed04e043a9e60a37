"""A picture of ranked lists: a query, then its nearest neighbours, right ones green, wrong ones red."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Circle, Rectangle

from rll_tf.evaluation.pictures import as_picture, fit
from rll_tf.files import replacing

# Everything is laid out in pixels of the file, so that pictures keep their own pixels.
DPI = 150
SIDE = 144  # a picture's longer side: 3 x 48, and with a little air 5 x 28, 4 x 32, 2 x 64
CELL = 172  # from one picture to the next
MARGIN = 40
HEADER = 48  # column headings
LINE = 20  # a line of small print
LEGEND = 40
LEAST_WIDTH = 820  # the legend's
GAP = 28  # between the query's column and the first neighbour, and between rows
FRAME = 4
BADGE = 12  # radius of the tick's or cross's disc

RIGHT, WRONG, QUERY = "#1a7f37", "#cf222e", "#57606a"
INK, FAINT = "#1f2328", "#656d76"
TICK, CROSS, UNKNOWN = "✓", "✗", "\ufffd"
FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"  # matplotlib's own, whatever is installed or configured


def draw_ranked_lists(
    path: str | os.PathLike[str],
    query_images: Sequence[Any],
    neighbour_images: Sequence[Sequence[Any]],
    correct: Sequence[Sequence[bool]] | np.ndarray,
    *,
    distances: Sequence[Sequence[float]] | np.ndarray | None = None,
    query_captions: Sequence[str] | None = None,
    neighbour_captions: Sequence[Sequence[str]] | None = None,
    title: str = "Ranked lists",
    subtitle: str = "",
) -> Path:
    """Write a PNG of q rows: a query and its neighbours, nearest first.

    Right and wrong ones differ in colour and by a tick or a cross; distances stand below. Letters that the
    font lacks are shown as a replacement sign; long captions are shortened.

    Args:
        path: the PNG, replaced at once when it is complete; its folder is made.
        query_images: q pictures, see `pictures.as_picture`; of any sizes.
        neighbour_images: q lists of pictures, possibly of different lengths.
        correct: q lists of whether a neighbour is of the query's class.
        distances: q lists of distances, or None to print none.
        query_captions: q texts, e.g. class names.
        neighbour_captions: q lists of texts.
        title: the heading.
        subtitle: a line below it, e.g. the data, the split, and how the queries were chosen.

    Returns:
        The path written.

    Raises:
        ValueError: there is no query, the lists' lengths differ, or a picture is none.
    """
    lengths = [len(row) for row in neighbour_images]
    if not lengths or not max(lengths):
        raise ValueError("there must be at least one query with a neighbour: got none")
    for name, lists in (("correct", correct), ("distances", distances), ("captions", neighbour_captions)):
        if lists is not None and [len(row) for row in lists] != lengths:
            raise ValueError(f"{name} must have the neighbours' lengths {lengths}: got {[*map(len, lists)]}")
    if len(query_images) != len(lengths) or len(query_captions or query_images) != len(lengths):
        raise ValueError(
            f"every list needs one query: got {len(lengths)} lists, {len(query_images)} queries, "
            f"{len(query_captions or query_images)} captions"
        )

    lines = (distances is not None) + (query_captions is not None or neighbour_captions is not None)
    pitch = SIDE + 2 * FRAME + lines * LINE + GAP
    top = MARGIN + 34 + (26 if subtitle else 0)
    sheet = _Sheet(
        width=max(LEAST_WIDTH, 2 * MARGIN + SIDE + GAP + max(lengths) * CELL),
        height=top + HEADER + len(lengths) * pitch + LEGEND + MARGIN // 2,
    )
    sheet.text(MARGIN, MARGIN + 12, title, 12, bold=True, ha="left", width=sheet.width - 2 * MARGIN)
    if subtitle:
        sheet.text(MARGIN, MARGIN + 44, subtitle, 8, colour=FAINT, ha="left", width=sheet.width - 2 * MARGIN)
    decimals = 0 if distances is None else decimals_for(max(map(max, filter(len, distances))))
    first = MARGIN + SIDE + GAP + CELL // 2
    sheet.text(MARGIN + SIDE // 2, top + HEADER // 2, "query", 8, colour=FAINT)
    for rank in range(max(lengths)):
        sheet.text(first + rank * CELL, top + HEADER // 2, str(rank + 1), 8, colour=FAINT)

    for row, query in enumerate(query_images):
        y = top + HEADER + row * pitch + FRAME
        sheet.picture(MARGIN + SIDE // 2, y, query, QUERY)
        below = y + SIDE + FRAME + LINE // 2 + 3
        if query_captions is not None:
            sheet.text(MARGIN + SIDE // 2, below, query_captions[row], 7, width=CELL - 8)
        for rank, image in enumerate(neighbour_images[row]):
            x, right = first + rank * CELL, bool(correct[row][rank])
            sheet.picture(x, y, image, RIGHT if right else WRONG, TICK if right else CROSS)
            if neighbour_captions is not None:
                sheet.text(x, below, neighbour_captions[row][rank], 7, width=CELL - 8)
            if distances is not None:
                text = f"{distances[row][rank]:.{decimals}f}"
                sheet.text(x, below + LINE * (lines - 1), text, 7, colour=FAINT)
    _legend(sheet, distances is not None)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        sheet.canvas.print_png(partial)
    return file


def _legend(sheet: _Sheet, with_distances: bool) -> None:
    x, y = MARGIN + BADGE, sheet.height - MARGIN // 2 - LEGEND // 2
    right, wrong = (RIGHT, TICK, "of the query's class", 240), (WRONG, CROSS, "of another class", 210)
    for colour, glyph, text, width in (right, wrong):
        sheet.badge(x, y, colour, glyph)
        sheet.text(x + 20, y, text, 8, colour=FAINT, ha="left")
        x += width
    if with_distances:
        sheet.text(x, y, "numbers: distance to the query", 8, colour=FAINT, ha="left")


class _Sheet:
    """A white page measured in pixels from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)

    def text(
        self, x: float, y: float, text: str, points: float, *, colour: str = INK, bold: bool = False,
        ha: str = "center", width: float | None = None,
    ) -> None:  # fmt: skip
        file = FONTS / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
        self.figure.text(
            x / self.width, 1 - y / self.height, printable(text, file, points, width), color=colour, ha=ha,
            va="center_baseline", size=points, font=FontProperties(fname=str(file), size=points),
            parse_math=False,
        )  # fmt: skip

    def picture(self, x: int, y: int, image: Any, colour: str, glyph: str = "") -> None:
        """A framed picture, centred in a square whose top side is at y and centre at x."""
        pixels = np.asarray(fit(as_picture(image), SIDE))
        height, width = pixels.shape[:2]
        left, upper = x - width // 2, y + (SIDE - height) // 2
        self.figure.figimage(pixels, left, self.height - upper - height, resize=False)
        frame = (left - FRAME / 2, self.height - upper - height - FRAME / 2)
        self._add(Rectangle(frame, width + FRAME, height + FRAME, fill=False, ec=colour, lw=FRAME * 72 / DPI))
        if glyph:
            self.badge(left + width, upper, colour, glyph)

    def badge(self, x: float, y: float, colour: str, glyph: str) -> None:
        self._add(Circle((x, self.height - y), BADGE, fc=colour, ec="white", lw=1.2))
        self.text(x, y + 1, glyph, 8, colour="white", bold=True)

    def _add(self, patch: Rectangle | Circle) -> None:
        patch.set_transform(None)  # pixels of the file
        patch.set_zorder(2)
        self.figure.add_artist(patch)


def decimals_for(largest: float) -> int:
    """Decimals that show about three digits of numbers up to `largest`, the same for all of them."""
    return max(0, min(6, 2 - math.floor(math.log10(largest)))) if largest > 0 else 2


def printable(text: str, font_file: Path, points: float, width_px: float | None = None) -> str:
    """The text on one line, letters that the font lacks replaced, and cut to `width_px` in its middle."""
    font = FT2Font(str(font_file))
    known = font.get_charmap()
    text = "".join(letter if ord(letter) in known else UNKNOWN for letter in " ".join(text.split()))
    font.set_size(points, DPI)

    def width(candidate: str) -> float:
        font.set_text(candidate)
        return font.get_width_height()[0] / 64  # FreeType measures in 64ths of a pixel

    kept = len(text)
    shown = text
    while width_px is not None and kept > 1 and width(shown) > width_px:
        kept -= 1
        shown = text[: (kept + 1) // 2].rstrip() + "…" + text[len(text) - kept // 2 :].lstrip()
    return shown
