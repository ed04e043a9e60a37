"""What turns a picture into embeddings?"""

from rll_tf.models.caffe_layers import freeze_batch_norm, synchronise_batch_norm
from rll_tf.models.convnet import convnet
from rll_tf.models.efficientnet_lite import efficientnet_lite
from rll_tf.models.embedding import BACKBONES, LEVELS, embedding_model, find_backbone, imagenet_weights
from rll_tf.models.inception_bn import inception_bn
from rll_tf.models.pretrained import Pretrained, load_pretrained, pretrained_origin
from rll_tf.models.proxies import ProxySimilarity, without_proxies

__all__ = [
    "BACKBONES",
    "LEVELS",
    "Pretrained",
    "ProxySimilarity",
    "convnet",
    "efficientnet_lite",
    "embedding_model",
    "find_backbone",
    "freeze_batch_norm",
    "imagenet_weights",
    "inception_bn",
    "load_pretrained",
    "pretrained_origin",
    "synchronise_batch_norm",
    "without_proxies",
]
