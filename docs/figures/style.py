"""What the figures share: transparent, in colours that read on white and on black."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

HERE = Path(__file__).parent
GREY, POSITIVE, NEGATIVE = "#808588", "#2b8fd9", "#e0762f"
mpl.rcParams.update(
    {
        "axes.edgecolor": GREY,
        "axes.labelcolor": GREY,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": GREY,
        "font.size": 10,
        "legend.frameon": False,
        "legend.labelcolor": GREY,
        "savefig.bbox": "tight",
        "savefig.transparent": True,
        "svg.fonttype": "none",
        "svg.hashsalt": "rll_tf",
        "text.color": GREY,
        "xtick.color": GREY,
        "ytick.color": GREY,
    }
)
