"""Several losses on the same batches, each with two seeds, tested on letters never seen.

Every loss has its default parameters and one learning rate, which is unfair to some: `rll compare` searches
both.
"""

import keras
import numpy as np

import rll_tf
from rll_tf.evaluation import retrieval_metrics

letters = rll_tf.data.open_dataset("glyphs")
train, unseen = letters.select("train"), letters.select("test")
LOSSES = {
    "ranked list": lambda: rll_tf.RankedListLoss(margin=0.8),
    "semi-hard triplets": lambda: rll_tf.losses.TripletSemiHardLoss(normalize=True),
    "multi-similarity": rll_tf.losses.MultiSimilarityLoss,
}


def network():
    """Enough for letters."""
    return keras.Sequential(
        [
            keras.Input([32, 32, 1]),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(64, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(64),
        ]
    )


def recall(make_loss, seed):
    """Recall@1 after training with this loss: of the same weights, with the same batches, for every loss."""
    keras.utils.set_random_seed(seed)
    batches = rll_tf.data.class_balanced_dataset(train.pixels, train.labels, 40, 4, seed=seed)
    model = network()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss=make_loss())
    model.fit(batches, steps_per_epoch=200, shuffle=False, verbose=0)
    embeddings = model.predict(unseen.pixels, verbose=0)
    return retrieval_metrics(embeddings, unseen.labels, clustering=False, normalize=True)["recall@1"]


for name, make_loss in LOSSES.items():
    values = [recall(make_loss, seed) for seed in (0, 1)]
    low, high = min(values), max(values)
    print(f"{name}: Recall@1 on letters never seen: {np.mean(values):.3f} ({low:.3f} to {high:.3f})")
