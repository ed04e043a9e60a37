"""`sop` as its authors released it in 2019.

rll train sop_2019 --data sop:PATH

The run of the 2019 release: 60 × 3, α = 1.2, m = 0.4, halved every 5,000 steps.
What it needs is told in `paper.py`; nothing has been measured with it here.
"""

import dataclasses

from trainers.recipes import sop

DATA = sop.DATA
SETTINGS = dataclasses.replace(
    sop.SETTINGS,
    variant="release2019",
)
