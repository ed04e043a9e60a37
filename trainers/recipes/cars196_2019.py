"""`cars196` as its authors released it in 2019.

rll train cars196_2019 --data cars196:PATH

The 2019 release's loss; its numbers for CARS196 aren't known here: those of the paper.
What it needs is told in `paper.py`; nothing has been measured with it here.
"""

import dataclasses

from trainers.recipes import cars196

DATA = cars196.DATA
SETTINGS = dataclasses.replace(
    cars196.SETTINGS,
    variant="release2019",
)
