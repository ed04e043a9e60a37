"""What the benchmark of an endpoint counts."""

import threading

import pytest

from benchmarks.serving import JOINED, drive, row_of


def test_every_call_is_counted_once():
    """Of all callers, which ask at the same time, each with numbers of its own."""
    numbers, together = [], threading.Barrier(3)

    def ask(number):
        numbers.append(number)
        together.wait(60)  # fails unless all three are under way

    taken, rate = drive(ask, 3, 0.0)
    assert sorted(numbers) == [0, 1, 2]
    assert len(taken) == 3
    assert rate > 0


def test_a_failed_call_fails_the_measurement():
    """An error is no fast answer."""

    def ask(number):
        if number == 5:
            raise OSError("refused")

    with pytest.raises(OSError, match="refused"):
        drive(ask, 2, 60.0)


def test_percentiles_and_rates():
    """Milliseconds of calls, of pictures a second."""
    taken = [0.001 * count for count in range(1, 102)]
    row = row_of(("batched", "grpc", 8, id), taken, 5.0)
    assert (row["p50_ms"], row["p99_ms"]) == pytest.approx((51, 100))
    assert (row["calls"], row["pictures_per_second"]) == (101, 5)
    assert row_of((f"loop of {JOINED}", "", 1, id), taken, 5.0)["pictures_per_second"] == 5 * JOINED
