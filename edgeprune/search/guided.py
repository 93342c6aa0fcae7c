"""The guided search: bisection on the share of the MACs that is kept, first without training, then with it.

What a model costs and what it loses both move one way with its width, so that each limit has a width where it begins to
hold. Where costs are limited the widest model that holds them is the one that loses least; where only the loss is
limited it is the narrowest that holds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgeprune.search.budget import Budget
from edgeprune.search.trial_record import Trial

NARROWEST = 0.02
# Without training a model loses more than it will: what the quick judgement allows beside the limit.
_RECOVERED_SHARE, _RECOVERED_POINTS = 3.0, 0.05


class Runner(Protocol):
    """What makes trials."""

    @property
    def is_training(self) -> bool:
        """Whether measured trials are trained."""

    @property
    def costs(self) -> list[str]:
        """The limits on what a file costs."""

    def quick(self, target_macs: float) -> Trial:
        """A trial without training."""

    def measured(self, target_macs: float) -> Trial:
        """A trial on its file."""


@dataclass(frozen=True)
class Outcome:
    """What a search ends with.

    Attributes:
        best: the measured trial that holds the limits on the search's samples, or comes nearest; None where no trial
            could be measured.
        holds: whether it holds them.
    """

    best: Trial | None
    holds: bool


def guided(
    runner: Runner, budget: Budget, *, num_trials: int, num_finalists: int, say: Callable[[str], None]
) -> Outcome:
    """Search.

    Args:
        runner: makes the trials.
        budget: the limits.
        num_trials: quick trials at most.
        num_finalists: measured trials at most, that of the original beside them.
        say: is called with what is being done.

    Returns:
        The best measured trial.
    """
    whole = runner.measured(1.0)
    if whole.error is None and not _broken(budget, whole, runner.costs) and runner.costs:
        if _holds(budget, whole):
            return Outcome(whole, True)  # nothing has to be cut
    floor, share = _quick_start(runner, budget, num_trials, say)
    low, high, finalists = max(floor, share / 3), 1.0, [whole]
    for number in range(num_finalists if share < 1 else 0):
        say(f"measuring {number + 1} of {num_finalists} at {share:.0%} of the MACs")
        trial = runner.measured(share)
        finalists.append(trial)
        goes_wider = _should_be_wider(budget, trial, runner.costs)
        if goes_wider is None:
            break
        low, high = (share, high) if goes_wider else (low, share)
        share = round(math.sqrt(low * high), 4)
        if high / low < 1.05:
            break
    return _best(budget, finalists, runner.costs)


def _quick_start(runner: Runner, budget: Budget, num_trials: int, say: Callable[[str], None]) -> tuple[float, float]:
    """The share of the MACs below which nothing can be made, and that at which the limits begin to hold untrained."""
    floor, low, high, best = NARROWEST, NARROWEST, 1.0, None
    for number in range(num_trials):
        share = round(math.sqrt(low * high), 4)
        if high / low < 1.02:
            break
        say(f"trial {number + 1} of {num_trials} at {share:.0%} of the MACs")
        trial = runner.quick(share)
        if trial.error is not None:
            floor = max(floor, share)
            low = share
        elif runner.costs:
            if _broken(budget, trial, runner.costs):
                high = share
            else:
                low = best = share  # it fits: perhaps a wider one does
        elif _loses_too_much(budget, trial, runner.is_training):
            low = share
        else:
            high = best = share
    return floor, high if best is None else best


def _should_be_wider(budget: Budget, trial: Trial, costs: list[str]) -> bool | None:
    """Where the next measured trial is to go from one; None where no other width can be better."""
    if trial.error is not None:
        return True
    too_wide, holds = bool(_broken(budget, trial, costs)), _holds(budget, trial)
    if costs:
        if too_wide:
            return False
        return None if holds else True
    return not holds


def _best(budget: Budget, trials: list[Trial], costs: list[str]) -> Outcome:
    """The best that holds: with limits on costs the one that loses least, else the narrowest; or the nearest."""
    made = [trial for trial in trials if trial.error is None]
    if not made:
        return Outcome(None, False)
    holding = [trial for trial in made if _holds(budget, trial)]
    if not holding:
        return Outcome(min(made, key=lambda trial: budget.overshoot(trial.figures)), False)
    figure = "accuracy_drop" if costs else "macs"
    return Outcome(min(holding, key=lambda trial: trial.figures[figure]), True)


def _holds(budget: Budget, trial: Trial) -> bool:
    return trial.error is None and not budget.exceeded(trial.figures)


def _broken(budget: Budget, trial: Trial, costs: list[str]) -> list[str]:
    return [one.limit for one in budget.exceeded(trial.figures) if one.limit in costs]


def _loses_too_much(budget: Budget, trial: Trial, is_training: bool) -> bool:
    limit = budget.limits.get("max_accuracy_drop")
    if limit is None:
        return False
    allowed = limit * _RECOVERED_SHARE + _RECOVERED_POINTS if is_training else limit
    return (math.inf if trial.accuracy_drop is None else trial.accuracy_drop) > allowed
