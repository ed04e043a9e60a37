"""The next values to try: spread over the ranges at first, then proposed by Optuna from the trials before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rll_tf.training.comparison.ranges import Range, three_digits

Values = dict[str, Any]
# After the first trial, the loss's default, so many are spread over the ranges before the search looks at
# results: a Latin hypercube, where each value lies once in each third of its range.
SPREAD_TRIALS = 3


def propose(ranges: Sequence[Range], finished: Sequence[tuple[Values, float]]) -> Values:
    """The values of the next trial; they depend on nothing but the ranges and the finished trials.

    So a killed search goes on as if it had not been. The first of the ranges, the learning rate, is spread in
    the same way for every loss.

    Args:
        ranges: of what is searched.
        finished: the values of each trial so far, and its validation metric.
    """
    if not finished:
        return {each.key: each.first for each in ranges}
    if len(finished) <= SPREAD_TRIALS:
        random = np.random.default_rng(0)
        thirds = [random.permutation(SPREAD_TRIALS)[len(finished) - 1] for _ in ranges]
        return {
            each.key: _at(each, (third + 0.5) / SPREAD_TRIALS)
            for each, third in zip(ranges, thirds, strict=True)
        }
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = {each.key: _distribution(each) for each in ranges}
    sampler = optuna.samplers.TPESampler(seed=len(finished), n_startup_trials=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for values, metric in finished:
        study.add_trial(optuna.trial.create_trial(params=values, distributions=kinds, value=metric))
    drawn = study.ask(kinds).params
    return {
        each.key: drawn[each.key]
        if each.choices
        else min(max(three_digits(drawn[each.key]), each.low), each.high)
        for each in ranges
    }


def _at(each: Range, share: float) -> Any:
    """The value at this share of the range."""
    if each.choices:
        return each.choices[int(share * len(each.choices))]
    if each.scale == "log":
        return three_digits(math.exp(math.log(each.low) + share * math.log(each.high / each.low)))
    return three_digits(each.low + share * (each.high - each.low))


def _distribution(each: Range) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if each.choices:
        return CategoricalDistribution(each.choices)
    return FloatDistribution(each.low, each.high, log=each.scale == "log")
