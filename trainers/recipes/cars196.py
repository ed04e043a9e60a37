"""CARS196: cars, 8,054 pictures of classes 1 to 98; tested on the other 98.

rll train cars196 --data cars196:PATH

The paper: rate 1e-2, 10,000 steps. It tells no schedule; halving every 2,000 steps is the release's for CUB.
What it needs is told in `paper.py`; the paper's numbers have not been measured with it here.
"""

import dataclasses

from trainers.recipes import paper

DATA = "cars196:data/cars196"
SETTINGS = dataclasses.replace(
    paper.SETTINGS,
    learning_rate=1e-2,
    steps=10_000,
    halve_every_steps=2_000,
)
