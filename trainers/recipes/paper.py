"""What the recipes for the paper's data sets have in common (sections 3.4 and 4.1). Not a recipe of its own.

Pictures are resized to 256×256, cropped to 227×227 and mirrored at random; a batch has 60 classes of 3
pictures; each of three levels has its own loss, α = 1.2, m = 0.4, T = 10; SGD with momentum 0.9 and weight
decay 1e-5, ten times faster in the three new dense layers, from ImageNet's weights, batch norm in training
mode. No classes are held out of the training classes: the last checkpoint counts.

Each recipe tells what it needs. The weights are `weights/googlenet_bn.caffemodel`, or another file with
`--set weights=FILE`: the PyTorch port's, `bn_inception-52deb4733.pth`, with `--set layout=pytorch` too. They
can't be downloaded from here. `--set weights=none` trains from random weights, for which these numbers were
not chosen.

Estimated, not measured: memory, from the size of the activations, 16 GB for 180 pictures in float32 (the
authors' GPU had 32 GB); hours, from 500 pictures a second forward and backward.

The paper's numbers have not been measured with these recipes here.
"""

from rll_tf.training import Settings

SETTINGS = Settings(
    backbone="inception_bn",
    weights="weights/googlenet_bn.caffemodel",
    input_px=227,
    resize_px=256,
    mirror=True,
    alpha=1.2,
    margin=0.4,
    temperature=10.0,
    classes_per_batch=60,
    images_per_class=3,
    momentum=0.9,
    weight_decay=1e-5,
    new_layers_rate=10.0,
    validate_every_steps=500,
    validation_share=0.0,
)
