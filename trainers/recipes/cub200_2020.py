"""`cub200` as its authors released it in 2020.

rll train cub200_2020 --data cub200:PATH

The 2020 release's loss. It trains on random crops of half to all of a picture's side, which the augmentation
here lacks: instead of that, the paper's crop with random zoom and stretch.
What it needs is told in `paper.py`; nothing has been measured with it here.
"""

import dataclasses

from trainers.recipes import cub200

DATA = cub200.DATA
SETTINGS = dataclasses.replace(
    cub200.SETTINGS,
    variant="release2020",
    zoom=0.4,
    stretch=0.33,
)
