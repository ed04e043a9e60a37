"""The data set that needs no download: letters, drawn from the fonts that matplotlib ships.

Everything that decides a pixel, a class or a split is integer arithmetic, exactly rounded, or rounded to a
grid far coarser than a float's last digit, so the same versions draw the same bytes on every machine.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from scipy.sparse.csgraph import connected_components

from rll_tf.data.catalogue import Catalogue

FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
SIZE_PX = 32

_EM_PX = 96  # fine enough for an undistorted drawing to be the source of every distorted one
_SHAPE_PX = 24  # a drawing's shape: its ink's box stretched to this square
_SAME_LETTER = 0.9  # correlation in DejaVu Sans above which two letters are one class
_SAME_DRAWING = 0.95  # correlation in any font above which a drawing may be of either class

_LETTER_PX = 20.0  # the longer side of a letter before its distortion: most corners then stay inside
_ROTATION = np.deg2rad(15.0)
_SCALE = (0.75, 1.1)
_SHEAR = 0.2
_SHIFT_PX = 3.0
_OVERSAMPLING = 4  # samples a pixel and axis
_GRID = 1 << 16  # affine coefficients are multiples of 1 / _GRID, which Pillow computes with exactly


def glyphs(seed: int = 0) -> Catalogue:
    """Draws 330 letters in sixteen fonts, [n, 32, 32, 1] uint8, dark ink on white.

    The letters are those that all `FONTS` have, without modifier letters (small raised signs) and without
    letters that Unicode composes of others (À, ﬁ), which would join classes that look different to people.

    **Classes.** Letters that look alike in DejaVu Sans are one class, named by all its members: A with its
    Greek and Cyrillic twins, C with c. A font contributes one picture to a class, of a member drawn by lot. A
    drawing that looks like another class's in its own font is not used (italics draw the Cyrillic т as an m).

    **Pictures.** A letter is centred, then rotated, scaled, sheared and shifted at random, by the constants
    above, with anti-aliased edges.

    **Splits.** By class, at random: half for "test", a fifth of the others for "validation", the rest for
    "train".

    Args:
        seed: decides pixels and splits. The classes are the same for every seed.

    Returns:
        The catalogue, ordered by class, then by font; `paths` such as "glyphs/U+0041 A/DejaVuSans-Bold".
    """
    rng = np.random.default_rng(seed)
    letters = common_letters()
    drawings = [[_draw(font, letter) for letter in letters] for font in map(_font, FONTS)]
    likeness = np.stack([_likeness(row) for row in drawings])
    class_of_letter = letter_classes(likeness[0])
    usable = ~_ambiguous(likeness, class_of_letter)

    chosen = [
        (label, font, rng.choice(members))
        for label in range(class_of_letter.max() + 1)
        for font in range(len(FONTS))
        if len(members := np.flatnonzero(usable[font] & (class_of_letter == label)))
    ]
    labels = np.array([label for label, _, _ in chosen], np.int64)
    distortions = rng.uniform(-1.0, 1.0, (len(chosen), 5))
    pixels = [_distort(drawings[f][i], d) for (_, f, i), d in zip(chosen, distortions, strict=True)]
    members_of = [np.flatnonzero(class_of_letter == label) for label in range(class_of_letter.max() + 1)]
    return Catalogue(
        spec="glyphs",
        paths=tuple(f"glyphs/U+{ord(letters[i]):04X} {letters[i]}/{FONTS[f]}" for _, f, i in chosen),
        labels=labels,
        class_names=tuple(" ".join(letters[i] for i in members) for members in members_of),
        splits=_splits(labels, rng),
        pixels=np.stack(pixels)[..., np.newaxis],
    )


def common_letters() -> list[str]:
    """The letters that all `FONTS` have a drawing of, in the order of their code points."""
    shared = set.intersection(*(set(FT2Font(_path(name)).get_charmap()) for name in FONTS))
    return [letter for letter in map(chr, sorted(shared)) if _is_plain_letter(letter)]


def letter_classes(likeness: np.ndarray) -> np.ndarray:
    """[L] int64: a class for each letter, numbered by their first letters; look-alikes share one.

    Two letters look alike where their correlation exceeds 0.9, and so do a look-alike's look-alikes: in
    DejaVu Sans 330 letters make 213 classes, 145 of one letter, one of twelve (the rings).

    Args:
        likeness: [L, L], the letters' correlations in one font.
    """
    return connected_components(likeness > _SAME_LETTER, directed=False)[1].astype(np.int64)


def _is_plain_letter(letter: str) -> bool:
    category = unicodedata.category(letter)
    return category[0] == "L" and category != "Lm" and unicodedata.normalize("NFKD", letter) == letter


def _path(name: str) -> str:
    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"))


def _font(name: str) -> ImageFont.FreeTypeFont:
    # The other layout engine is a library of its own, which not every machine has.
    return ImageFont.truetype(_path(name), _EM_PX, layout_engine=ImageFont.Layout.BASIC)


def _draw(font: ImageFont.FreeTypeFont, letter: str) -> Image.Image:
    """The letter, ink 255 on 0, cropped to its ink."""
    image = Image.new("L", (3 * _EM_PX, 3 * _EM_PX))
    ImageDraw.Draw(image).text((_EM_PX, _EM_PX), letter, fill=255, font=font)
    return image.crop(image.getbbox())


def _likeness(drawings: list[Image.Image]) -> np.ndarray:
    """[L, L] float64: normalised correlations of the drawings' shapes, cropped and stretched alike.

    The sums are of integers below 2^53, hence exact in any order; what follows is rounded once an operation.
    """
    stretched = [image.resize((_SHAPE_PX, _SHAPE_PX), Image.Resampling.BOX) for image in drawings]
    shapes = np.stack([np.asarray(image) for image in stretched])
    # The margin gives a shape to a letter that fills its box, such as I.
    flat = np.pad(shapes, ((0, 0), (1, 1), (1, 1))).reshape(len(shapes), -1).astype(np.float64)
    total = flat.sum(axis=1)
    covariance = flat.shape[1] * (flat @ flat.T) - np.outer(total, total)
    deviation = np.sqrt(covariance.diagonal())
    return covariance / np.outer(deviation, deviation)


def _ambiguous(likeness: np.ndarray, class_of_letter: np.ndarray) -> np.ndarray:
    """[F, L] bool: in this font, the letter is drawn like an earlier letter of another class."""
    earlier = np.tri(len(class_of_letter), k=-1, dtype=bool)
    other = class_of_letter[:, np.newaxis] != class_of_letter
    return ((likeness > _SAME_DRAWING) & earlier & other).any(axis=2)


def _distort(drawing: Image.Image, distortion: np.ndarray) -> np.ndarray:
    """[32, 32] uint8: the drawing, distorted by five numbers from -1 to 1, dark on white."""
    angle, shear = distortion[0] * _ROTATION, distortion[1] * _SHEAR
    scale = np.interp(distortion[2], (-1.0, 1.0), _SCALE) * _LETTER_PX / max(drawing.size)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation, shearing = np.array([[cos, -sin], [sin, cos]]), np.array([[1.0, shear], [0.0, 1.0]])
    forward = scale * _OVERSAMPLING * rotation @ shearing  # from the drawing to the samples
    inverse = np.linalg.inv(forward)
    centre = (SIZE_PX / 2 + distortion[3:] * _SHIFT_PX) * _OVERSAMPLING
    origin = np.array(drawing.size) / 2 - inverse @ centre
    coefficients = np.rint(np.column_stack([inverse, origin]) * _GRID) / _GRID
    fine = drawing.transform(
        (SIZE_PX * _OVERSAMPLING,) * 2,
        Image.Transform.AFFINE,
        tuple(coefficients.ravel().tolist()),
        Image.Resampling.NEAREST,
    )
    return 255 - np.asarray(fine.reduce(_OVERSAMPLING))


def _splits(labels: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    classes = rng.permutation(labels.max() + 1)
    half = len(classes) // 2
    train = half - half // 5
    parts = {"train": classes[:train], "validation": classes[train:half], "test": classes[half:]}
    return {name: np.flatnonzero(np.isin(labels, part)) for name, part in parts.items()}
