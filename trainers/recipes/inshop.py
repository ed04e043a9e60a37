"""In-shop Clothes: 25,882 pictures of 3,997 classes; 14,218 queries against a gallery of 12,612.

rll train inshop --data inshop:PATH

Not in the paper, only in a later release whose numbers aren't known here: those of SOP.

What it needs; the last two are estimates, nothing was timed:

* data: 25,882 pictures of 3,997 classes, and 26,830 of 3,985 others to be tested on;
* weights of ImageNet: `weights/googlenet_bn.caffemodel` or `--set weights=FILE`, see `paper.py`;
* a GPU with about 16 GB of memory, about 9 GB in `mixed_float16`;
* about 1.6 hours: 16,000 steps of 180 pictures on a GPU that trains 500 pictures a second.

The paper's numbers have not been measured with it here.
"""

import dataclasses

from trainers.recipes import paper

DATA = "inshop:data/inshop"
SETTINGS = dataclasses.replace(
    paper.SETTINGS,
    learning_rate=1e-2,
    steps=16_000,
    halve_every_steps=5_000,
)
