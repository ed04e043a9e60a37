"""Which loss is best on these pictures? The protocol of "A Metric Learning Reality Check" (2020)."""

from rll_tf.training.comparison.engine import Comparison, Outcome, Trainer, compare
from rll_tf.training.comparison.results import format_results, summarise
from rll_tf.training.comparison.rows import Row, parse_rows

__all__ = [
    "Comparison",
    "Outcome",
    "Row",
    "Trainer",
    "compare",
    "format_results",
    "parse_rows",
    "summarise",
]
