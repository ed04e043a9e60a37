"""`cub200` as its authors released it in 2020.

rll train cub200_2020 --data cub200:PATH

The 2020 release's loss and its crops: half to all of a picture's side, 3/4 to 4/3 as wide as high, resized to
the network's 227 px.

What it needs; the last two are estimates, nothing was timed:

* data: 5,864 pictures of 100 classes, and 5,924 of 100 others to be tested on;
* weights of ImageNet: `weights/googlenet_bn.caffemodel` or `--set weights=FILE`, see `paper.py`;
* a GPU with about 16 GB of memory, about 9 GB in `mixed_float16`;
* about 1.0 hours: 10,000 steps of 180 pictures on a GPU that trains 500 pictures a second.

The paper's numbers have not been measured with it here.
"""

import dataclasses

from trainers.recipes import cub200

DATA = cub200.DATA
SETTINGS = dataclasses.replace(
    cub200.SETTINGS,
    variant="release2020",
    scale_and_aspect=True,
)
