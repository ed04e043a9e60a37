"""How a batch of embeddings is judged."""

from rll_tf.losses.keras_loss import RankedListLoss
from rll_tf.losses.ranked_list import ranked_list_loss

__all__ = ["RankedListLoss", "ranked_list_loss"]
