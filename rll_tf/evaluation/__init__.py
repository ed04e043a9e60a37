"""Evaluation: how good are these embeddings, and how do they look?"""

from rll_tf.evaluation.metrics import concatenate_levels, retrieval_metrics
from rll_tf.evaluation.neighbours import nearest_neighbours
from rll_tf.evaluation.tables import format_table

__all__ = ["concatenate_levels", "format_table", "nearest_neighbours", "retrieval_metrics"]
