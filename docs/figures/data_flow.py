"""From pictures to answers: `python docs/figures/data_flow.py` writes data_flow.png."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from style import GREY, HERE, NEGATIVE, POSITIVE

from rll_tf import data

CLASSES, PICTURES = 4, 3
LEFT, RIGHT, BOTTOM, TOP = 0.5, 58.5, 1.5, 20  # in the units of all that is drawn

figure = plt.figure(figsize=(10, 10 * (TOP - BOTTOM) / (RIGHT - LEFT)))
canvas = figure.add_axes((0, 0, 1, 1))
canvas.set(aspect="equal")
canvas.axis("off")
TRAIN, UNSEEN = (data.open_dataset("glyphs").select(split) for split in ("train", "test"))


def letter(letters, number, place, x, y, edge="none"):
    """The picture at this place of a class, its lower left corner at (x, y)."""
    pixels = letters.pixels[np.flatnonzero(letters.labels == np.unique(letters.labels)[number])[place]]
    canvas.imshow(pixels.squeeze(), cmap="gray", extent=(x, x + 2, y, y + 2), zorder=2)
    canvas.add_patch(FancyBboxPatch((x, y), 2, 2, "square,pad=0", fc="none", ec=edge, lw=1.8, zorder=3))


def caption(x, title, text):
    """What a stage is, below it."""
    canvas.text(x, 5.6, title, ha="center", va="top", weight="bold")
    canvas.text(x, 3.9, text, ha="center", va="top", fontsize=8, linespacing=1.4)


def arrow(start, end, **style):
    """From one stage to the next."""
    canvas.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=GREY, lw=1.3, **style)
    )


def box(x, y, width, height, text):
    """A part of the network, or a file."""
    canvas.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0.2", fc="none", ec=GREY, lw=1.3))
    canvas.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)


# A batch: a class a row.
for number in range(CLASSES):
    for place in range(PICTURES):
        letter(TRAIN, number, place, 1 + 2.4 * place, 17 - 2.4 * number)
caption(4.4, "a batch", "C classes × K pictures\n(tf.data)")
arrow((8.8, 13.4), (11.2, 13.4))

# The network and its three embeddings.
for step, (part, y) in enumerate([("layers", 17.2), ("layers", 13.4), ("layers", 9.6)]):
    box(11.7, y - 1, 4, 2, part)
    box(18, y - 1, 3.4, 2, ("low", "mid", "high")[step])
    arrow((16, y), (17.8, y))
    if step:
        arrow((13.7, y + 2.6), (13.7, y + 1.3))
caption(16.5, "a network", "embeddings at three levels,\nside by side in use")
arrow((22, 13.4), (24.4, 13.4))

# The loss: a query, its two boundaries, what is pulled and what is pushed.
query = np.array([30, 13.4])
for radius, name in [(2.6, "α − m"), (4.6, "α")]:
    canvas.add_patch(Circle(query, radius, fc="none", ec=GREY, lw=1, ls=":"))
    canvas.text(query[0], query[1] + radius + 0.15, name, ha="center", va="bottom", fontsize=8)
canvas.plot(*query, "o", color=POSITIVE, ms=9)
for angle, distance, colour, moved in [
    (200, 1.5, POSITIVE, 0), (330, 4.1, POSITIVE, -1.4), (250, 3.7, POSITIVE, -1),
    (60, 2.0, NEGATIVE, 2.4), (140, 3.4, NEGATIVE, 1.1), (20, 5.4, NEGATIVE, 0), (290, 5.3, NEGATIVE, 0),
]:  # fmt: skip
    way = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    canvas.plot(*(query + distance * way), "o", color=colour, ms=6)
    if moved:
        begin = query + (distance + 0.35 * np.sign(moved)) * way
        arrow(begin, query + (distance + moved) * way, shrinkA=0, shrinkB=0)
caption(30, "Ranked List Loss", "")
canvas.text(30, 3.9, "positives pulled,", ha="center", va="top", fontsize=8, color=POSITIVE)
canvas.text(30, 2.8, "negatives pushed", ha="center", va="top", fontsize=8, color=NEGATIVE)
arrow((36, 13.4), (38.4, 13.4))

# What is served.
box(39, 15.4, 7.6, 3.6, "SavedModel\nand gallery")
box(39, 8, 7.6, 3.6, "TensorFlow\nServing")
arrow((42.8, 15), (42.8, 12.1))
caption(42.8, "an endpoint", "rll export;\nREST and gRPC")

# A query of a class never seen, and its ranked list.
letter(UNSEEN, 2, 0, 50, 16.2, GREY)
canvas.text(52.6, 17.2, "query", va="center", fontsize=8)
arrow((49.5, 16.6), (47.2, 11.6))
for place, (number, picture) in enumerate([(2, 1), (2, 2), (3, 0)]):
    letter(UNSEEN, number, picture, 50 + 2.5 * place, 8.8, POSITIVE if number == 2 else NEGATIVE)
arrow((47.2, 9.8), (49.5, 9.8))
caption(53.6, "a class never seen", "its nearest pictures,\nnearest first")

canvas.set(xlim=(LEFT, RIGHT), ylim=(BOTTOM, TOP))  # last, since pictures change them
figure.savefig(HERE / "data_flow.png", dpi=160)
