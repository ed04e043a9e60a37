"""`inshop` as its authors released it in 2019.

rll train inshop_2019 --data inshop:PATH

The 2019 release's loss; it had no In-shop run: the numbers are those of SOP.

What it needs; the last two are estimates, nothing was timed:

* data: 25,882 pictures of 3,997 classes, and 26,830 of 3,985 others to be tested on;
* weights of ImageNet: `weights/googlenet_bn.caffemodel` or `--set weights=FILE`, see `paper.py`;
* a GPU with about 16 GB of memory, about 9 GB in `mixed_float16`;
* about 1.6 hours: 16,000 steps of 180 pictures on a GPU that trains 500 pictures a second.

The paper's numbers have not been measured with it here.
"""

import dataclasses

from trainers.recipes import inshop

DATA = inshop.DATA
SETTINGS = dataclasses.replace(
    inshop.SETTINGS,
    variant="release2019",
)
