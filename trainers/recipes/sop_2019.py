"""`sop` as its authors released it in 2019.

rll train sop_2019 --data sop:PATH

The run of the 2019 release: 60 × 3, α = 1.2, m = 0.4, halved every 5,000 steps.

What it needs; the last two are estimates, nothing was timed:

* data: 59,551 pictures of 11,318 classes, and 60,502 of 11,316 others to be tested on;
* weights of ImageNet: `weights/googlenet_bn.caffemodel` or `--set weights=FILE`, see `paper.py`;
* a GPU with about 16 GB of memory, about 9 GB in `mixed_float16`;
* about 1.6 hours: 16,000 steps of 180 pictures on a GPU that trains 500 pictures a second.

The paper's numbers have not been measured with it here.
"""

import dataclasses

from trainers.recipes import sop

DATA = sop.DATA
SETTINGS = dataclasses.replace(
    sop.SETTINGS,
    variant="release2019",
)
