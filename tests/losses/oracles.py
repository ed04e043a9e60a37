"""The losses on pairs as slow loops in NumPy float64, written from the papers' formulas."""

import math

import numpy as np


def distance_table(embeddings, metric="L2"):
    """The distances of all pairs, each from the two vectors."""
    f = np.asarray(embeddings, np.float64)
    table = np.zeros([len(f), len(f)])
    for i, a in enumerate(f):
        for j, b in enumerate(f):
            if metric == "angular":
                table[i, j] = 1 - cosine(a, b)
            else:
                table[i, j] = np.sum((a - b) ** 2) ** (1 if metric == "squared-L2" else 0.5)
    return table


def cosine(a, b):
    """The cosine of two vectors, 0 if one is zero."""
    lengths = math.sqrt(a @ a) * math.sqrt(b @ b)
    return float(a @ b) / lengths if lengths > 0 else 0.0


def others(labels, i):
    """The positives and the negatives of i."""
    same = [j for j in range(len(labels)) if labels[j] == labels[i] and j != i]
    return same, [j for j in range(len(labels)) if labels[j] != labels[i]]


def triplet_semihard(labels, embeddings, margin=1.0, metric="L2"):
    """The mean hinge over ordered positive pairs, each with its semi-hard negative."""
    d, hinges = distance_table(embeddings, metric), []
    for a in range(len(labels)):
        positives, negatives = others(labels, a)
        for p in positives:
            farther = [d[a, n] for n in negatives if d[a, n] > d[a, p]]
            if negatives:
                chosen = min(farther) if farther else max(d[a, n] for n in negatives)
                hinges.append(max(0.0, margin + d[a, p] - chosen))
            else:
                hinges.append(0.0)
    return float(np.mean(hinges)) if hinges else 0.0


def triplet_hard(labels, embeddings, margin=1.0, soft=False, metric="L2"):
    """The mean hinge over anchors, each with its hardest positive and negative."""
    d, hinges = distance_table(embeddings, metric), []
    for a in range(len(labels)):
        positives, negatives = others(labels, a)
        if not negatives:
            hinges.append(0.0)
            continue
        gap = max([d[a, p] for p in positives] or [0.0]) - min(d[a, n] for n in negatives)
        hinges.append(np.logaddexp(0, gap) if soft else max(0.0, margin + gap))
    return float(np.mean(hinges))


def lifted_struct(labels, embeddings, margin=1.0):
    """Half the mean over unordered positive pairs of the squared, positive J."""
    d, squares = distance_table(embeddings), []
    for i in range(len(labels)):
        positives, negatives = others(labels, i)
        for j in [p for p in positives if p > i]:
            terms = [margin - d[i, k] for k in negatives] + [margin - d[j, k] for k in negatives]
            largest = max(terms, default=0.0)
            total = sum(math.exp(term - largest) for term in terms)
            value = d[i, j] + largest + math.log(total) if terms else 0.0
            squares.append(max(0.0, value) ** 2)
    return float(np.mean(squares)) / 2 if squares else 0.0


def n_pair(labels, embeddings, l2=0.002):
    """Softmax cross entropy over each class's first two, and their squared norms."""
    f = np.asarray(embeddings, np.float64)
    members = {}
    for i, label in enumerate(labels):
        members.setdefault(label, []).append(i)
    pairs = [each[:2] for each in members.values() if len(each) > 1]
    values = []
    for i, own in pairs:
        gaps = [f[i] @ f[j] - f[i] @ f[own] for _, j in pairs if j != own]
        largest = max([0.0, *gaps])
        values.append(largest + math.log(sum(math.exp(gap - largest) for gap in [0.0, *gaps])))
        values[-1] += l2 / 4 * (f[i] @ f[i] + f[own] @ f[own])
    return float(np.mean(values)) if values else 0.0


def npairs(labels, similarities):
    """Cross entropy of each row with a target even over its label's columns."""
    return npairs_multilabel(np.asarray(labels)[:, None] == np.unique(labels)[None, :], similarities)


def npairs_multilabel(labels, similarities):
    """Cross entropy of each row with the numbers of common labels over their sum."""
    sets, values = [set(np.flatnonzero(row)) for row in np.asarray(labels)], []
    for i, row in enumerate(np.asarray(similarities, np.float64)):
        common = [len(sets[i] & other) for other in sets]
        log_total = row.max() + math.log(sum(math.exp(s - row.max()) for s in row))
        values.append(
            sum(c * (log_total - s) for c, s in zip(common, row, strict=True)) / max(sum(common), 1)
        )
    return float(np.mean(values))


def contrastive(same, distances, margin=1.0):
    """Each pair's squared distance, or its squared lack of it."""
    return [d**2 if y else max(0.0, margin - d) ** 2 for y, d in zip(same, distances, strict=True)]


def multi_similarity(labels, embeddings, alpha=2.0, beta=50.0, threshold=0.5, epsilon=0.1):
    """The value of each query over its mined pairs."""
    f, values = np.asarray(embeddings, np.float64), []
    for i in range(len(labels)):
        positives, negatives = ([cosine(f[i], f[j]) for j in each] for each in others(labels, i))
        if epsilon is None:
            pull, push = positives, negatives
        else:
            pull = [s for s in positives if negatives and s - epsilon < max(negatives)]
            push = [s for s in negatives if positives and s + epsilon > min(positives)]
        value = math.log(1 + sum(math.exp(-alpha * (s - threshold)) for s in pull)) / alpha
        values.append(value + math.log(1 + sum(math.exp(beta * (s - threshold)) for s in push)) / beta)
    return np.array(values)
