"""`inshop` as its authors released it in 2019.

rll train inshop_2019 --data inshop:PATH

The 2019 release's loss; it had no In-shop run: the numbers are those of SOP.
What it needs is told in `paper.py`; nothing has been measured with it here.
"""

import dataclasses

from trainers.recipes import inshop

DATA = inshop.DATA
SETTINGS = dataclasses.replace(
    inshop.SETTINGS,
    variant="release2019",
)
