"""`cub200` as its authors released it in 2019.

rll train cub200_2019 --data cub200:PATH

The run of the 2019 release: 20 classes × 3, α = 1.4, m = 0.2, weight decay 2e-5, halved every 2,000 steps.
What it needs is told in `paper.py`; nothing has been measured with it here.
"""

import dataclasses

from trainers.recipes import cub200

DATA = cub200.DATA
SETTINGS = dataclasses.replace(
    cub200.SETTINGS,
    variant="release2019",
    classes_per_batch=20,
    alpha=1.4,
    margin=0.2,
    weight_decay=2e-5,
)
