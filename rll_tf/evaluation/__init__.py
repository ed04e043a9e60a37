"""Evaluation: how good are these embeddings, and how do they look?"""

from rll_tf.evaluation.callback import RetrievalMetrics
from rll_tf.evaluation.metrics import CONCAT, concatenate_levels, level_metrics, retrieval_metrics
from rll_tf.evaluation.neighbours import nearest_neighbours
from rll_tf.evaluation.ranked_lists import draw_ranked_lists
from rll_tf.evaluation.report import write_report
from rll_tf.evaluation.selection import RankedLists, hardest_ranked_lists, pick_ranked_lists
from rll_tf.evaluation.tables import format_table

__all__ = [
    "CONCAT",
    "RankedLists",
    "RetrievalMetrics",
    "concatenate_levels",
    "draw_ranked_lists",
    "format_table",
    "hardest_ranked_lists",
    "level_metrics",
    "nearest_neighbours",
    "pick_ranked_lists",
    "retrieval_metrics",
    "write_report",
]
