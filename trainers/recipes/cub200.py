"""CUB-200-2011: birds, 5,864 pictures of classes 1 to 100; tested on the other 100.

rll train cub200 --data cub200:PATH

The paper: rate 1e-3, 10,000 steps. It tells no schedule; the release halves the rate every 2,000 steps.

What it needs; the last two are estimates, nothing was timed:

* data: 5,864 pictures of 100 classes, and 5,924 of 100 others to be tested on;
* weights of ImageNet: `weights/googlenet_bn.caffemodel` or `--set weights=FILE`, see `paper.py`;
* a GPU with about 16 GB of memory, about 9 GB in `mixed_float16`;
* about 1.0 hours: 10,000 steps of 180 pictures on a GPU that trains 500 pictures a second.

The paper's numbers have not been measured with it here.
"""

import dataclasses

from trainers.recipes import paper

DATA = "cub200:data/CUB_200_2011"
SETTINGS = dataclasses.replace(
    paper.SETTINGS,
    learning_rate=1e-3,
    steps=10_000,
    halve_every_steps=2_000,
)
