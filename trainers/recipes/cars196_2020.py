"""`cars196` as its authors released it in 2020.

rll train cars196_2020 --data cars196:PATH

The 2020 release's loss and its crops: half to all of a picture's side, 3/4 to 4/3 as wide as high, resized to
the network's 227 px.

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
    variant="release2020",
    scale_and_aspect=True,
)
