"""What turns a picture into embeddings?"""

from rll_tf.models.caffe_layers import freeze_batch_norm
from rll_tf.models.convnet import convnet
from rll_tf.models.embedding import BACKBONES, LEVELS, embedding_model
from rll_tf.models.inception_bn import inception_bn
from rll_tf.models.pretrained import Pretrained, load_pretrained

__all__ = [
    "BACKBONES",
    "LEVELS",
    "Pretrained",
    "convnet",
    "embedding_model",
    "freeze_batch_norm",
    "inception_bn",
    "load_pretrained",
]
