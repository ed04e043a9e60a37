"""The paper's network from random weights, on a user's own pictures, small enough for a CPU.

rll train inception_bn --data folder:PATH --set mirror=true

ImageNet's weights are far better where there are some: `--set weights=FILE --set learning_rate=0.01
--set new_layers_rate=10`. From random weights a wide margin and a large step matter most. The numbers
here were chosen by reason, not by search.
"""

from rll_tf.training import Settings

DATA = "glyphs"
SETTINGS = Settings(
    backbone="inception_bn",
    embedding_dim=128,
    input_px=112,
    resize_px=128,
    margin=0.8,
    classes_per_batch=16,
    images_per_class=4,
    steps=300,
    learning_rate=0.1,
    weight_decay=1e-5,
    validate_every_steps=100,
)
