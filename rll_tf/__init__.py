__version__ = "0.1.0"

from rll_tf import losses as losses
from rll_tf.losses import RankedListLoss as RankedListLoss
