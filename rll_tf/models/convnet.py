"""A small convolutional network with three levels, for small pictures and machines without a GPU."""

from __future__ import annotations

import keras

from rll_tf.models.backbone import Backbone

CHANNELS = (32, 64, 128, 128)
# A head sees its tap averaged to about this many cells a side: enough to keep where a stroke lies.
HEAD_CELLS = 3
MIN_INPUT_PX = 2 ** len(CHANNELS)


def convnet(input_shape: tuple[int, int, int] = (48, 48, 3)) -> keras.Model:
    """Four blocks of 3×3 convolution, 2×2 max pooling, batch norm and ReLU.

    Args:
        input_shape: (height, width, channels), each side at least 16 px.

    Returns:
        A model from [B, height, width, channels] to `{"block_1": [B, height/2, width/2, 32], …, "block_4":
        [B, height/16, width/16, 128]}`, sides rounded down.

    Raises:
        ValueError: a side is too small to be halved four times.
    """
    if min(input_shape[:2]) < MIN_INPUT_PX:
        raise ValueError(f"convnet needs at least {MIN_INPUT_PX} px a side; got input_shape={input_shape}")
    features = inputs = keras.Input(input_shape, name="pictures")
    taps = {}
    for number, channels in enumerate(CHANNELS, 1):
        name = f"block_{number}"
        features = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv")(
            features
        )
        # Pooled first, so that the norm and the ReLU work on a quarter of the numbers: a step takes 0.7 times as
        # long on a CPU.
        features = keras.layers.MaxPooling2D(2, name=f"{name}_pool")(features)
        features = keras.layers.BatchNormalization(name=f"{name}_norm")(features)
        features = keras.layers.ReLU(name=name)(features)
        taps[name] = features
    return keras.Model(inputs, taps, name="convnet")


def _head(level: str, features: keras.KerasTensor, embedding_dim: int) -> keras.KerasTensor:
    """From a tap [B, h, w, c] to an embedding before normalisation, [B, embedding_dim]."""
    cells = max(1, min(features.shape[1:3]) // HEAD_CELLS)
    if cells > 1:
        features = keras.layers.AveragePooling2D(cells, name=f"{level}_pool")(features)
    features = keras.layers.Flatten(name=f"{level}_flatten")(features)
    return keras.layers.Dense(embedding_dim, use_bias=False, name=f"{level}_dense")(features)


CONVNET = Backbone(
    trunk=convnet,
    taps={"low": "block_2", "mid": "block_3", "high": "block_4"},
    head=_head,
    input_shape=(48, 48, 3),
    embedding_dim=128,
)
