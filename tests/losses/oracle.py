"""Ranked List Loss as slow double loops in NumPy float64, written from the paper's equations."""

import math

import numpy as np


def oracle(labels, embeddings, *, gallery=None, variant="paper", **parameters):
    """Values [N], the gradient of their mean [N, D], and how many positives and negatives each mines."""
    f = np.asarray(embeddings, np.float64)
    count = len(f)
    if gallery is not None:
        labels, f = np.concatenate([labels, gallery[0]]), np.concatenate([f, gallery[1]])
    losses, gradients, exponents, mined = np.zeros(count), np.zeros([count, f.shape[1]]), [], []
    for i in range(count):
        losses[i], gradient, exponent, counts = one_query(i, labels, f, variant=variant, **parameters)
        gradients[i] = gradient / count
        exponents.append(exponent)
        mined.append(counts)
    largest = max((max(each) for each in exponents if each), default=0.0)
    masses = [sum(math.exp(exponent - largest) for exponent in each) for each in exponents]
    if variant != "paper" and sum(masses) > 0:
        for i in range(count):
            omega = masses[i] / sum(masses)
            losses[i] *= count * omega / 2
            gradients[i] *= count * omega / 2
    return losses, gradients, np.array(mined).reshape(count, 2)


def one_query(
    i, labels, f, *, alpha=1.2, margin=0.4, temperature=10.0, variant="paper", positive_temperature=0.0,
    balance=0.5,
):  # fmt: skip
    """L_i, dL_i/df_i, the exponents of all weights, and the two counts."""
    beyond, within = (1 - margin / 2, 1 + margin / 2) if variant == "release2020" else (alpha - margin, alpha)
    squared = variant == "release2019"
    positives, negatives = [], []
    for j in range(len(f)):
        if j == i:
            continue
        d = length(f[i] - f[j])
        if labels[i] == labels[j] and d > beyond:
            step = f[i] - f[j] if squared else unit(f[i] - f[j], d)
            value = (d**2 - beyond**2) / 2 if squared else d - beyond
            positives.append((value, step, positive_temperature * (d - beyond)))
        if labels[i] != labels[j] and d < within:
            step = f[i] - f[j] if squared else unit(f[i] - f[j], d)
            value = (within**2 - d**2) / 2 if squared else within - d
            negatives.append((value, -step, temperature * (within - d)))
    loss, gradient = 0.0, np.zeros(f.shape[1])
    for part, weight in ((positives, 2 * (1 - balance)), (negatives, 2 * balance)):
        largest = max((exponent for _, _, exponent in part), default=0.0)
        total = sum(math.exp(exponent - largest) for _, _, exponent in part)
        for value, step, exponent in part:
            share = math.exp(exponent - largest) / total
            loss += weight * share * value
            gradient += weight * share * step
    exponents = [exponent for _, _, exponent in positives + negatives]
    return loss, gradient, exponents, (len(positives), len(negatives))


def unit(apart, d):
    """(f_i - f_j) / d_ij, and 0 where the distance is 0."""
    return apart / d if d > 0 else np.zeros_like(apart)


def length(vector):
    """The Euclidean length."""
    return math.sqrt(float(vector @ vector))
