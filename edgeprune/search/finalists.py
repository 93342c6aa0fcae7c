"""The slow loop of every strategy: which trials are trained and measured on their files, and which of them is best."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeprune.search.budget import Budget
from edgeprune.search.runner import Runner, Settings
from edgeprune.search.trial_record import Trial


@dataclass(frozen=True)
class Outcome:
    """What a search ends with.

    Attributes:
        best: the measured trial that holds the limits on the search's samples, or comes nearest; None where no trial
            could be measured.
        holds: whether it holds them.
        reason: why no model can hold them, where that is known.
    """

    best: Trial | None
    holds: bool
    reason: str = ""


class Finalists:
    """Trials on files.

    Args:
        runner: makes them.
        budget: the limits.
        num_ways: how many ways to quantize there are.

    Attributes:
        way: the number of the way to quantize that the original's file is best in.
        trials: those that were measured.
    """

    def __init__(self, runner: Runner, budget: Budget, num_ways: int) -> None:
        self._runner, self._budget, self._num_ways = runner, budget, num_ways
        self.way = 0
        self.trials: list[Trial] = []

    def measure_whole(self) -> Trial:
        """Measure the original, in the first way to quantize that leaves half of the allowed drop to the cut."""
        made: list[Trial] = []
        for way in range(self._num_ways):
            made += self._runner.measured([{"target_macs": 1.0, "way": way}])
            self.way = way
            if drop_of(made[-1]) <= self._allowed / 2:
                break
        else:
            self.way = min(range(len(made)), key=lambda way: drop_of(made[way]))
        self.trials += made
        return made[self.way]

    def measure(self, settings: Settings) -> Trial:
        """Measure a trial; where the model holds and its file does not, also in the next ways to quantize it."""
        made: list[Trial] = []
        for way in range(settings["way"], self._num_ways):
            made += self._runner.measured([{**settings, "way": way}])
            if not self._falls_short_by_rounding(made[-1]):
                break
        self.trials += made
        return min(made, key=drop_of)

    def goes_wider(self, trial: Trial) -> bool | None:
        """Whether what is measured after a trial is to be wider; None where no other width can be better."""
        if trial.state != "ok":
            return True
        if not self._budget.costs:
            return not holds_all(self._budget, trial)
        if broken_costs(self._budget, trial):
            return False
        return None if holds_all(self._budget, trial) else True

    def outcome(self) -> Outcome:
        """The best: with limits on costs the one that loses least, else the narrowest; or the nearest."""
        made = [trial for trial in self.trials if trial.state == "ok"]
        if not made:
            return Outcome(None, False)
        holding = [trial for trial in made if holds_all(self._budget, trial)]
        if not holding:
            return Outcome(min(made, key=lambda trial: self._budget.overshoot(trial.figures)), False)
        return Outcome(min(holding, key=self._rank), True)

    def _rank(self, trial: Trial) -> tuple[float, float]:
        drop, macs = drop_of(trial), math.inf if trial.macs is None else trial.macs
        return (drop, macs) if self._budget.costs else (macs, drop)

    def _falls_short_by_rounding(self, trial: Trial) -> bool:
        """Whether a file loses more than is allowed, and its Keras model does not."""
        if trial.score is None or trial.float_score is None or drop_of(trial) <= self._allowed:
            return False
        return drop_of(trial) - abs(trial.float_score - trial.score) <= self._allowed

    @property
    def _allowed(self) -> float:
        return self._budget.limits.get("max_accuracy_drop", math.inf)


def holds_all(budget: Budget, trial: Trial) -> bool:
    """Whether a trial is made and holds every limit."""
    return trial.state == "ok" and not budget.exceeded(trial.figures)


def broken_costs(budget: Budget, trial: Trial) -> list[str]:
    """The limits on costs that a trial breaks."""
    return [one.limit for one in budget.exceeded(trial.figures) if one.limit in budget.costs]


def drop_of(trial: Trial) -> float:
    """How much worse a trial is than the original; infinite where it is not known."""
    return math.inf if trial.accuracy_drop is None else trial.accuracy_drop


# Without training a model loses more than it will: what the quick judgement allows beside the limit, of the original's
# score.
_RECOVERED_SHARE, _RECOVERED_POINTS = 3.0, 0.2


def quick_drop_allowed(budget: Budget, runner: Runner) -> float:
    """How much a quick trial may lose for its file to hold the limit once it is trained."""
    limit = budget.limits.get("max_accuracy_drop", math.inf)
    return limit * _RECOVERED_SHARE + _RECOVERED_POINTS * abs(runner.baseline) if runner.is_training else limit
