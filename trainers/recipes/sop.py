"""Stanford Online Products: 59,551 pictures of 11,318 classes; tested on 11,316 others.

rll train sop --data sop:PATH

The paper: rate 1e-2, 16,000 steps. It tells no schedule; the release halves the rate every 5,000 steps.
What it needs is told in `paper.py`; the paper's numbers have not been measured with it here.
"""

import dataclasses

from trainers.recipes import paper

DATA = "sop:data/Stanford_Online_Products"
SETTINGS = dataclasses.replace(
    paper.SETTINGS,
    learning_rate=1e-2,
    steps=16_000,
    halve_every_steps=5_000,
)
