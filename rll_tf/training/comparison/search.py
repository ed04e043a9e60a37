"""The next values to try, proposed by Optuna from the trials before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rll_tf.training.comparison.ranges import Range, three_digits

Values = dict[str, Any]
# After the first trial, the loss's default, so many are drawn at random before the search looks at results.
RANDOM_TRIALS = 3


def propose(ranges: Sequence[Range], finished: Sequence[tuple[Values, float]]) -> Values:
    """The values of the next trial; they depend on nothing but the ranges and the finished trials.

    So a killed search goes on as if it had not been. Random draws are the same for every loss: the first of
    the ranges, the learning rate, takes the same shares of its range in each.

    Args:
        ranges: of what is searched.
        finished: the values of each trial so far, and its validation metric.
    """
    if not finished:
        return {each.key: each.first for each in ranges}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = {each.key: _distribution(each) for each in ranges}
    sampler = optuna.samplers.TPESampler(seed=len(finished), n_startup_trials=1 + RANDOM_TRIALS)
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


def _distribution(each: Range) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if each.choices:
        return CategoricalDistribution(each.choices)
    return FloatDistribution(each.low, each.high, log=each.scale == "log")
