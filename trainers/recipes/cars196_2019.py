"""`cars196` as its authors released it in 2019.

rll train cars196_2019 --data cars196:PATH

The 2019 release's loss; its numbers for CARS196 aren't known here: those of the paper.

What it needs; the last two are estimates, nothing was timed:

* data: 8,054 pictures of 98 classes, and 8,131 of 98 others to be tested on;
* weights of ImageNet: `weights/googlenet_bn.caffemodel` or `--set weights=FILE`, see `paper.py`;
* a GPU with about 16 GB of memory, about 9 GB in `mixed_float16`;
* about 1.0 hours: 10,000 steps of 180 pictures on a GPU that trains 500 pictures a second.

The paper's numbers have not been measured with it here.
"""

import dataclasses

from trainers.recipes import cars196

DATA = cars196.DATA
SETTINGS = dataclasses.replace(
    cars196.SETTINGS,
    variant="release2019",
)
