"""What α, m and T do: `python docs/figures/formula.py` writes formula.svg."""

import matplotlib.pyplot as plt
import numpy as np
from style import GREY, HERE, NEGATIVE, POSITIVE

import rll_tf

ALPHA, MARGIN = 1.2, 0.4


def pair_loss(distance, is_positive):
    """The loss of a query whose batch holds one other picture, at this distance on the unit circle."""
    angle = 2 * np.arcsin(distance / 2)
    embeddings = np.array([[1, 0], [np.cos(angle), np.sin(angle)]], np.float32)
    loss = rll_tf.losses.ranked_list_loss(
        [0, 0 if is_positive else 1], embeddings, alpha=ALPHA, margin=MARGIN
    )
    return float(loss[0])


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")

distances = np.linspace(0, 2, 81)
for is_positive, colour in [(True, POSITIVE), (False, NEGATIVE)]:
    left.plot(distances, [pair_loss(d, is_positive) for d in distances], color=colour, lw=2)
left.text(0.35, 0.9, "a negative", color=NEGATIVE)
left.text(1.65, 0.9, "a positive", color=POSITIVE, ha="right")
for bound, name in [(ALPHA - MARGIN, "α − m"), (ALPHA, "α")]:
    left.axvline(bound, color=GREY, lw=1, ls=":")
    left.text(bound, 1.24, name, ha="center", va="bottom")
left.set(xlim=(0, 2), ylim=(0, 1.22), xlabel="distance from the query", ylabel="its loss")
left.set_xticks([0, 0.5, 1, 1.5, 2])

inside = np.linspace(0, ALPHA, 13)[1:]  # twelve negatives at equal steps
for temperature, colour in [(0, "#d9a521"), (2, NEGATIVE), (10, "#c9444d"), (100, "#9a5bc4")]:
    weights = np.exp(temperature * (ALPHA - inside) - temperature * ALPHA)
    right.plot(inside, weights / weights.sum(), "o-", ms=4, color=colour, label=f"T = {temperature}")
right.set(xlim=(0, 1.25), ylim=(0, 1.05), xlabel="distance from the query", ylabel="share of the weight")
right.legend(loc="upper right")

figure.savefig(HERE / "formula.svg", metadata={"Date": None})
