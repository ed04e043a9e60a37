"""How does a batch of embeddings become a loss?"""

from rll_tf.losses.contrastive import ContrastiveLoss, contrastive_loss
from rll_tf.losses.keras_loss import BatchLoss
from rll_tf.losses.lifted_struct import LiftedStructLoss, lifted_struct_loss
from rll_tf.losses.mining import (
    NegativeCount,
    NegativeShare,
    PositiveCount,
    PositiveShare,
    mined_counts,
    mining_metrics,
)
from rll_tf.losses.multi_similarity import MultiSimilarityLoss, multi_similarity_loss
from rll_tf.losses.npairs import (
    NPairLoss,
    NpairsLoss,
    NpairsMultilabelLoss,
    n_pair_loss,
    npairs_loss,
    npairs_multilabel_loss,
)
from rll_tf.losses.ranked_list import RankedListLoss, ranked_list_loss
from rll_tf.losses.triplet import (
    TripletHardLoss,
    TripletSemiHardLoss,
    triplet_hard_loss,
    triplet_semihard_loss,
)

# Every loss that a recipe may name: of class labels, and embeddings or their cosines to the proxies.
LOSSES: dict[str, type[BatchLoss]] = {
    "ranked_list": RankedListLoss,
    "triplet_semihard": TripletSemiHardLoss,
    "triplet_hard": TripletHardLoss,
    "lifted_struct": LiftedStructLoss,
    "n_pair": NPairLoss,
    "multi_similarity": MultiSimilarityLoss,
}

__all__ = [
    "LOSSES",
    "ContrastiveLoss",
    "LiftedStructLoss",
    "MultiSimilarityLoss",
    "NPairLoss",
    "NegativeCount",
    "NegativeShare",
    "NpairsLoss",
    "NpairsMultilabelLoss",
    "PositiveCount",
    "PositiveShare",
    "RankedListLoss",
    "TripletHardLoss",
    "TripletSemiHardLoss",
    "contrastive_loss",
    "lifted_struct_loss",
    "mined_counts",
    "mining_metrics",
    "multi_similarity_loss",
    "n_pair_loss",
    "npairs_loss",
    "npairs_multilabel_loss",
    "ranked_list_loss",
    "triplet_hard_loss",
    "triplet_semihard_loss",
]
