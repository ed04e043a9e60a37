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
from rll_tf.losses.proxy import ProxyAnchorLoss, ProxyNCALoss, proxy_anchor_loss, proxy_nca_loss
from rll_tf.losses.ranked_list import RankedListLoss, ranked_list_loss
from rll_tf.losses.spectral_clust import SpectralClustLoss, spectral_clust_loss
from rll_tf.losses.struct_clust import StructClustLoss, struct_clust_loss
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
    "struct_clust": StructClustLoss,
    "spectral_clust": SpectralClustLoss,
    "proxy_nca": ProxyNCALoss,
    "proxy_anchor": ProxyAnchorLoss,
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
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "RankedListLoss",
    "SpectralClustLoss",
    "StructClustLoss",
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
    "proxy_anchor_loss",
    "proxy_nca_loss",
    "ranked_list_loss",
    "spectral_clust_loss",
    "struct_clust_loss",
    "triplet_hard_loss",
    "triplet_semihard_loss",
]
