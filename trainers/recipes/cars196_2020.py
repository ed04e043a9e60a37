"""`cars196` as its authors released it in 2020.

rll train cars196_2020 --data cars196:PATH

The 2020 release's loss. It trains on random crops of half to all of a picture's side, which the augmentation
here lacks: instead of that, the paper's crop with random zoom and stretch.
What it needs is told in `paper.py`; nothing has been measured with it here.
"""

import dataclasses

from trainers.recipes import cars196

DATA = cars196.DATA
SETTINGS = dataclasses.replace(
    cars196.SETTINGS,
    variant="release2020",
    zoom=0.4,
    stretch=0.33,
)
