"""Evaluation: how good are these embeddings, and how do they look?"""

from rll_tf.evaluation.neighbours import nearest_neighbours

__all__ = ["nearest_neighbours"]
