"""A small convolutional network from random weights, for letters and other small pictures.

rll train convnet --data folder:PATH --out RUN
"""

from rll_tf.training import Settings

DATA = "glyphs"
SETTINGS = Settings(
    backbone="convnet",
    input_px=48,
    margin=0.8,
    steps=600,
    validation_share=0.1,
    learning_rate=0.4,
    rotate_degrees=15,
    zoom=0.2,
    stretch=0.2,
    shear=0.2,
    shift=0.08,
)
