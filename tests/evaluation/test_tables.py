"""The table in the terminal."""

from rll_tf.evaluation import format_table


def test_the_table_is_aligned_and_in_percent():
    """One line per row, right-aligned numbers, a dash for what was not measured."""
    full = {
        "recall@1": 0.8123,
        "recall@10": 1.0,
        "map@r": 0.5,
        "r_precision": 0.25,
        "nmi": 0.9,
        "pairwise_f1": 0.0,
    }
    text = format_table({"raw pixels": {"recall@1": 0.27}, "concat": full})
    assert text.splitlines() == [
        "             R@1   R@10  MAP@R  R-Prec   NMI   F1",
        "─────────────────────────────────────────────────",
        "raw pixels  27.0      -      -       -     -    -",
        "concat      81.2  100.0   50.0    25.0  90.0  0.0",
    ]
