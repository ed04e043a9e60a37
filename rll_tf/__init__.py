"""Ranked List Loss for Keras 3 on TensorFlow, from pictures to a served embedding."""

from __future__ import annotations

import os

if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    import keras

    _backend = keras.config.backend()
else:
    _backend = os.environ["KERAS_BACKEND"]
if _backend != "tensorflow":
    raise ImportError(
        f"rll_tf needs Keras with the TensorFlow backend; it is configured for {_backend!r}: "
        "set the environment variable KERAS_BACKEND=tensorflow, or unset it and correct ~/.keras/keras.json"
    )

from rll_tf import data, evaluation, losses, models, training
from rll_tf.losses import RankedListLoss

__all__ = ["RankedListLoss", "data", "evaluation", "losses", "models", "training"]
__version__ = "0.1.0"
