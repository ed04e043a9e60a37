"""Stanford Online Products: 59,551 pictures of 11,318 classes; tested on 11,316 others.

rll train sop --data sop:PATH

The paper: rate 1e-2, 16,000 steps. It tells no schedule; the release halves the rate every 5,000 steps.

What it needs; the last two are estimates, nothing was timed:

* data: 59,551 pictures of 11,318 classes, and 60,502 of 11,316 others to be tested on;
* weights of ImageNet: `weights/googlenet_bn.caffemodel` or `--set weights=FILE`, see `paper.py`;
* a GPU with about 16 GB of memory, about 9 GB in `mixed_float16`;
* about 1.6 hours: 16,000 steps of 180 pictures on a GPU that trains 500 pictures a second.

The paper's numbers have not been measured with it here.
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
