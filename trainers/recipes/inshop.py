"""In-shop Clothes: 25,882 pictures of 3,997 classes; 14,218 queries against a gallery of 12,612.

rll train inshop --data inshop:PATH

Not in the paper, only in a later release whose numbers aren't known here: those of SOP.
What it needs is told in `paper.py`; the paper's numbers have not been measured with it here.
"""

import dataclasses

from trainers.recipes import paper

DATA = "inshop:data/inshop"
SETTINGS = dataclasses.replace(
    paper.SETTINGS,
    learning_rate=1e-2,
    steps=16_000,
    halve_every_steps=5_000,
)
