"""Measuring in a fresh process."""

import os

from benchmarks.memory import in_fresh_process, status_bytes


def test_a_function_runs_in_a_process_of_its_own():
    """Its result is returned; where the process dies there is none."""
    assert in_fresh_process(os.getpid) not in (None, os.getpid())
    assert in_fresh_process(os._exit, 1) is None


def test_the_peak_is_at_least_what_is_resident():
    """Of this process by default, of another by its number."""
    assert 2**20 < status_bytes("VmRSS") <= status_bytes("VmHWM")
    assert status_bytes("VmHWM", os.getppid()) > 0
