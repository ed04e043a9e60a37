"""A ranked list during training: `python docs/figures/training.py` writes training.png in a few minutes."""

import keras
import matplotlib.pyplot as plt
import numpy as np
from style import GREY, HERE, NEGATIVE, POSITIVE

import rll_tf
from rll_tf import data
from rll_tf.evaluation import retrieval_metrics

STEPS = (0, 20, 100, 400)
QUERY = 7
ALPHA, MARGIN, TEMPERATURE = 1.2, 0.8, 10.0  # the recipe's


def snapshots():
    """The labels of letters never trained on, and their embeddings after each of `STEPS`."""
    keras.utils.set_random_seed(0)
    letters = data.open_dataset("glyphs")
    train, unseen = letters.select("train"), letters.select("validation")
    shape = data.Preprocessing(input_px=32, resize_px=32)
    augmentation = data.Augmentation(rotate_degrees=15, zoom=0.2, stretch=0.2, shear=0.2, shift=0.08)
    sampler = data.class_balanced_batches(train.labels, classes_per_batch=60, images_per_class=3, seed=0)
    batches = iter(data.training_batches(train, sampler, shape, augmentation, ["high"]))
    images = data.evaluation_batches(unseen, shape)

    model = rll_tf.models.embedding_model("convnet", levels=["high"], input_shape=(32, 32, 3))
    rate = keras.optimizers.schedules.CosineDecay(0.4, STEPS[-1])
    loss = rll_tf.RankedListLoss(ALPHA, MARGIN, TEMPERATURE)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss={"high": loss})
    embeddings = []
    for steps in np.diff([0, *STEPS]):
        for _ in range(steps):
            model.train_on_batch(*next(batches))
        embeddings.append(model.predict(images, verbose=0)["high"])
    return unseen.labels, embeddings


def in_the_plane(embeddings, before):
    """Points at their true distance from the query; their angles are those of the two widest directions."""
    centred = embeddings - embeddings.mean(0)
    plane = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    plane -= plane[QUERY]
    if before is not None:  # turned to lie as the panel before
        u, _, v = np.linalg.svd(plane.T @ before)
        plane = plane @ u @ v
    lengths = np.linalg.norm(plane, axis=1, keepdims=True)
    distances = np.linalg.norm(embeddings - embeddings[QUERY], axis=1, keepdims=True)
    return plane / np.maximum(lengths, 1e-9) * distances


def draw_list(panel, points, positive, negative):
    """The query in the middle, and around it what it mines, large, and what it leaves alone."""
    d = np.linalg.norm(points, axis=1)
    weights = np.where(negative & (d < ALPHA), np.exp(TEMPERATURE * (d[negative].min() - d)), 0)
    weights /= max(weights.sum(), 1e-9)
    for mask, colour, mined, size in [
        (negative, NEGATIVE, d < ALPHA, 8 + 500 * weights),
        (positive, POSITIVE, d > ALPHA - MARGIN, np.full(len(d), 26)),
    ]:
        panel.scatter(*points[mask & ~mined].T, s=7, color=colour, alpha=0.45, lw=0)
        panel.scatter(*points[mask & mined].T, s=size[mask & mined], color=colour, alpha=0.85, lw=0)
    panel.scatter(0, 0, marker="*", s=120, color=POSITIVE, edgecolor="white", lw=0.6, zorder=3)
    for radius, name in [(ALPHA - MARGIN, "α − m"), (ALPHA, "α")]:
        panel.add_patch(plt.Circle((0, 0), radius, fill=False, color=GREY, lw=1))
        panel.text(0, -radius, name, ha="center", va="top", fontsize=9)
    panel.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal", xticks=[], yticks=[])
    panel.spines[:].set_visible(False)


def draw_distances(panel, distances, same, others):
    """Histograms of the distances between all pairs."""
    bins = np.linspace(0, 1.8, 46)
    panel.hist(distances[~same], bins, color=NEGATIVE, alpha=0.6, density=True, label="other classes")
    panel.hist(distances[same & others], bins, color=POSITIVE, alpha=0.6, density=True, label="same class")
    for bound in (ALPHA - MARGIN, ALPHA):
        panel.axvline(bound, color=GREY, lw=1, ls=":")
    panel.set(xlim=(0, 1.8), yticks=[], xlabel="distance between two pictures")
    panel.set_xticks([0, ALPHA - MARGIN, ALPHA], ["0", "α − m", "α"])
    panel.spines["left"].set_visible(False)


def draw(labels, embeddings):
    """One column for each of `STEPS`."""
    figure, axes = plt.subplots(
        2, len(STEPS), figsize=(11, 4.9), height_ratios=[2.7, 1], layout="constrained"
    )
    same, others = labels[:, None] == labels, ~np.eye(len(labels), dtype=bool)
    points = None
    for step, vectors, upper, lower in zip(STEPS, embeddings, *axes, strict=True):
        points = in_the_plane(vectors, points)
        draw_list(upper, points, (same & others)[QUERY], ~same[QUERY])
        recall = retrieval_metrics(vectors, labels, [1], clustering=False)["recall@1"]
        upper.set_title(
            f"{step} steps, Recall@1 {recall:.0%}" if step else f"untrained, Recall@1 {recall:.0%}"
        )
        draw_distances(lower, np.linalg.norm(vectors[:, None] - vectors, axis=2), same, others)
    axes[1, 0].legend(loc="upper right", fontsize=8)
    figure.savefig(HERE / "training.png", dpi=130)


if __name__ == "__main__":
    draw(*snapshots())
