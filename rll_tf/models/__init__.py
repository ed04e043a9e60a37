"""What turns a picture into embeddings?"""

from rll_tf.models.convnet import convnet
from rll_tf.models.embedding import BACKBONES, LEVELS, embedding_model

__all__ = ["BACKBONES", "LEVELS", "convnet", "embedding_model"]
