"""How does a model learn?"""

from rll_tf.evaluation import CONCAT
from rll_tf.training.build import build
from rll_tf.training.distribution import is_chief, make_strategy
from rll_tf.training.embed import embed, evaluate, evaluate_embeddings
from rll_tf.training.optimizers import CaffeSGD, step_schedule
from rll_tf.training.run import Run
from rll_tf.training.settings import Settings
from rll_tf.training.train import check_same_pictures, train

__all__ = [
    "CONCAT",
    "CaffeSGD",
    "Run",
    "Settings",
    "build",
    "check_same_pictures",
    "embed",
    "evaluate",
    "evaluate_embeddings",
    "is_chief",
    "make_strategy",
    "step_schedule",
    "train",
]
