"""`cub200` as its authors released it in 2019.

rll train cub200_2019 --data cub200:PATH

The run of the 2019 release: 20 classes × 3, α = 1.4, m = 0.2, weight decay 2e-5, halved every 2,000 steps.

What it needs; the last two are estimates, nothing was timed:

* data: 5,864 pictures of 100 classes, and 5,924 of 100 others to be tested on;
* weights of ImageNet: `weights/googlenet_bn.caffemodel` or `--set weights=FILE`, see `paper.py`;
* a GPU with about 6 GB of memory, about 3 GB in `mixed_float16`;
* about 0.3 hours: 10,000 steps of 60 pictures on a GPU that trains 500 pictures a second.

The paper's numbers have not been measured with it here.
"""

import dataclasses

from trainers.recipes import cub200

DATA = cub200.DATA
SETTINGS = dataclasses.replace(
    cub200.SETTINGS,
    variant="release2019",
    classes_per_batch=20,
    alpha=1.4,
    margin=0.2,
    weight_decay=2e-5,
)
