"""`sop` as its authors released it in 2020.

rll train sop_2020 --data sop:PATH

The 2020 release's loss. It trains on random crops of half to all of a picture's side, which the augmentation
here lacks: instead of that, the paper's crop with random zoom and stretch.
What it needs is told in `paper.py`; nothing has been measured with it here.
"""

import dataclasses

from trainers.recipes import sop

DATA = sop.DATA
SETTINGS = dataclasses.replace(
    sop.SETTINGS,
    variant="release2020",
    zoom=0.4,
    stretch=0.33,
)
