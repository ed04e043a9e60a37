"""How does a batch of embeddings become a loss?"""

from rll_tf.losses.mining import (
    NegativeCount,
    NegativeShare,
    PositiveCount,
    PositiveShare,
    mined_counts,
    mining_metrics,
)
from rll_tf.losses.ranked_list import RankedListLoss, ranked_list_loss

__all__ = [
    "NegativeCount",
    "NegativeShare",
    "PositiveCount",
    "PositiveShare",
    "RankedListLoss",
    "mined_counts",
    "mining_metrics",
    "ranked_list_loss",
]
