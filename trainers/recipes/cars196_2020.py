"""`cars196` as its authors released it in 2020.

rll train cars196_2020 --data cars196:PATH

The 2020 release's loss and its crops: half to all of a picture's side, 3/4 to 4/3 as wide as high, resized to
the network's 227 px.
What it needs is told in `paper.py`; nothing has been measured with it here.
"""

import dataclasses

from trainers.recipes import cars196

DATA = cars196.DATA
SETTINGS = dataclasses.replace(
    cars196.SETTINGS,
    variant="release2020",
    scale_and_aspect=True,
)
