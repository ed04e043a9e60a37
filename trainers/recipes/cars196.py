"""CARS196: cars, 8,054 pictures of classes 1 to 98; tested on the other 98.

rll train cars196 --data cars196:PATH

The paper: rate 1e-2, 10,000 steps. It tells no schedule; halving every 2,000 steps is the release's for CUB.

What it needs; the last two are estimates, nothing was timed:

* data: 8,054 pictures of 98 classes, and 8,131 of 98 others to be tested on;
* weights of ImageNet: `weights/googlenet_bn.caffemodel` or `--set weights=FILE`, see `paper.py`;
* a GPU with about 16 GB of memory, about 9 GB in `mixed_float16`;
* about 1.0 hours: 10,000 steps of 180 pictures on a GPU that trains 500 pictures a second.

The paper's numbers have not been measured with it here.
"""

import dataclasses

from trainers.recipes import paper

DATA = "cars196:data/cars196"
SETTINGS = dataclasses.replace(
    paper.SETTINGS,
    learning_rate=1e-2,
    steps=10_000,
    halve_every_steps=2_000,
)
