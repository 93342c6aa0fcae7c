"""The guided search: deterministic, by bisection on the share of the MACs, first without training, then with it.

What a model costs and what it loses both move one way with its width, so that each limit has a width where it begins to
hold. Where costs are limited the widest model that holds them is the one that loses least; where only the loss is
limited it is the narrowest that holds it. How much each group loses at one share is told in several ways: by measured
curves, by the norms of the channels, with whole blocks removed, with zeros, and, within limits on time and memory, by a
knapsack over the costs of operators. The one that keeps most without training is followed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.search.budget import Budget
from edgeprune.search.runner import Runner, Settings
from edgeprune.search.trial_record import Trial

NARROWEST = 0.02
# Without training a model loses more than it will: what the quick judgement allows beside the limit, of the original's
# score.
_RECOVERED_SHARE, _RECOVERED_POINTS = 3.0, 0.05
_FIRST_SHARE = 0.7
_CLOSE = 1.05  # shares whose quotient is less are one
_QUICK_STEPS, _MORE_STEPS = 5, 4
_SPARSITIES = (0.5, 0.75)
_MOST_BLOCKS = 3


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


@dataclass(frozen=True)
class Directions:
    """What a search may do beside widths.

    Attributes:
        num_ways: how many ways to quantize there are.
        four_bits: the numbers of those with weights of 4 bits.
        num_blocks: how many residual blocks can be removed.
        compresses_zeros: whether zeros make what is limited smaller.
        plans_within: whether widths can be planned within the limits.
    """

    num_ways: int = 1
    four_bits: tuple[int, ...] = ()
    num_blocks: int = 0
    compresses_zeros: bool = False
    plans_within: bool = False


def guided(runner: Runner, budget: Budget, directions: Directions, *, num_trials: int, num_finalists: int) -> Outcome:
    """Search.

    Args:
        runner: makes the trials.
        budget: the limits.
        directions: what may be done beside widths.
        num_trials: quick trials at most.
        num_finalists: measured trials at most, those of the original beside them.

    Returns:
        The best measured trial.
    """
    return _Guided(runner, budget, directions, num_trials, num_finalists).outcome()


class _Guided:
    def __init__(
        self, runner: Runner, budget: Budget, directions: Directions, num_trials: int, num_finalists: int
    ) -> None:
        self.runner, self.budget, self.directions = runner, budget, directions
        self.quick_left, self.num_finalists = num_trials, num_finalists
        self.way = 0
        self.floor = NARROWEST

    def outcome(self) -> Outcome:
        """Search."""
        whole = self._whole()
        if self.budget.costs and holds_all(self.budget, whole[-1]):
            return Outcome(whole[-1], True)  # nothing has to be cut
        following, share = self._quick_start()
        return best_of(self.budget, [*whole, *self._finalists(following, share)])

    def _whole(self) -> list[Trial]:
        """The original in the first way to quantize that leaves most of the allowed loss to the cut."""
        allowed, trials = self.budget.limits.get("max_accuracy_drop", math.inf), []
        for way in range(self.directions.num_ways):
            trials += self.runner.measured([{"target_macs": 1.0, "way": way}])
            self.way = way
            last = trials[-1]
            if last.accuracy_drop is not None and last.accuracy_drop <= allowed / 2:
                return trials
        least = min(range(len(trials)), key=lambda way: _drop(trials[way]))
        self.way = least
        trials.append(trials.pop(least))
        return trials

    def _quick_start(self) -> tuple[Settings, float]:
        """How groups are weighed and what else is removed, and the share of the MACs at which the limits hold."""
        followed: Settings = {"weighed_by": "l2", "way": self.way}
        share, trial = self._bisected(followed, NARROWEST, 1.0, _QUICK_STEPS)
        for other in self._others():
            if self.budget.costs:  # each has a share of its own at which it is small enough
                low, high = max(self.floor, share / 2), min(1.0, share * 4)
                own_share, found = self._bisected(other, low, high, _MORE_STEPS)
            else:
                own_share, found = share, self._tried(other, share)
            if found is not None and (trial is None or _drop(found) < _drop(trial)):
                followed, share, trial = other, own_share, found
        if not self.budget.costs and trial is not None:
            narrower, found = self._bisected(followed, max(self.floor, share / 3), share, _MORE_STEPS)
            share = narrower if found is not None else share
        if self.directions.plans_within:
            within = {"weighed_by": "l2", "way": self.way}
            own_share, found = self._within(within)
            if found is not None and (trial is None or _drop(found) < _drop(trial)):
                return {**within, "within": own_share}, own_share
        # Training makes up for more than the quick judgement dares to count on.
        return followed, _FIRST_SHARE if trial is None and share >= 1 and self.runner.is_training else share

    def _others(self) -> list[Settings]:
        """What else may be done at one share of the MACs."""
        directions, weighings = self.directions, ("curves", "local")
        found: list[Settings] = [{"weighed_by": one, "way": self.way} for one in weighings]
        for count in range(1, min(directions.num_blocks, _MOST_BLOCKS) + 1):
            found.append({"weighed_by": "l2", "way": self.way, "num_blocks": count})
        if directions.compresses_zeros:
            found += [{"weighed_by": "l2", "way": self.way, "sparsity": one} for one in _SPARSITIES]
        if self.budget.costs:
            found += [{"weighed_by": "l2", "way": way} for way in directions.four_bits if way != self.way]
        return found

    def _bisected(self, settings: Settings, low: float, high: float, steps: int) -> tuple[float, Trial | None]:
        """The share at which the limits begin to hold without training, with its trial; None where none did."""
        best: tuple[float, Trial] | None = None
        for _ in range(steps):
            if high / low < _CLOSE:
                break
            share = round(math.sqrt(low * high), 4)
            trial = self._tried(settings, share)
            if trial is None:
                break
            if trial.state != "ok":
                self.floor, low = max(self.floor, share), share
            elif self.budget.costs:
                if self._broken(trial):
                    high = share
                else:
                    low, best = share, (share, trial)  # it fits: perhaps a wider one does
            elif self._loses_too_much(trial):
                low = share
            else:
                high, best = share, (share, trial)
        return best or (high, None)

    def _within(self, settings: Settings) -> tuple[float, Trial | None]:
        """Widths planned within the limits: the plan predicts costs, and what its file exceeds is taken off."""
        share = 1.0
        for _ in range(_MORE_STEPS):
            trial = self._made({**settings, "within": round(share, 4)})
            if trial is None or trial.state != "ok":
                break
            if not self._broken(trial):
                return round(share, 4), trial
            share /= 1 + self.budget.overshoot({**trial.figures, "accuracy_drop": 0.0}) + 0.02
        return share, None

    def _tried(self, settings: Settings, share: float) -> Trial | None:
        return self._made({**settings, "target_macs": share})

    def _made(self, settings: Settings) -> Trial | None:
        if self.quick_left < 1 or not self.runner.has_time("quick"):
            return None
        self.quick_left -= 1
        return self.runner.quick([settings])[0]

    def _finalists(self, following: Settings, share: float) -> list[Trial]:
        """Measured trials: by bisection from the share that the quick ones came to."""
        low, high, trials = max(self.floor, share / 3), 1.0, list[Trial]()
        key = "within" if "within" in following else "target_macs"
        for _ in range(self.num_finalists if share < 1 or key == "within" else 0):
            if trials and not self.runner.has_time("measured"):
                break
            trial = self._measured({**following, key: share}, trials)
            goes_wider = self._should_be_wider(trial)
            if goes_wider is None:
                break
            low, high = (share, high) if goes_wider else (low, share)
            share = round(math.sqrt(low * high), 4)
            if high / low < _CLOSE:
                break
        return trials

    def _measured(self, settings: Settings, trials: list[Trial]) -> Trial:
        """A measured trial; where the model holds and its file does not, also in the next ways to quantize it."""
        made: list[Trial] = []
        for way in range(settings["way"], self.directions.num_ways):
            made += self.runner.measured([{**settings, "way": way}])
            if not self._falls_short_by_rounding(made[-1]):
                break
        trials += made
        return min(made, key=_drop)

    def _falls_short_by_rounding(self, trial: Trial) -> bool:
        """Whether a file loses more than is allowed, and its Keras model does not."""
        allowed = self.budget.limits.get("max_accuracy_drop", math.inf)
        if trial.score is None or trial.float_score is None or _drop(trial) <= allowed:
            return False
        return _drop(trial) - abs(trial.float_score - trial.score) <= allowed

    def _should_be_wider(self, trial: Trial) -> bool | None:
        """Where the next measured trial is to go from one; None where no other width can be better."""
        if trial.state != "ok":
            return True
        if not self.budget.costs:
            return not holds_all(self.budget, trial)
        if self._broken(trial):
            return False
        return None if holds_all(self.budget, trial) else True

    def _broken(self, trial: Trial) -> list[str]:
        return [one.limit for one in self.budget.exceeded(trial.figures) if one.limit in self.budget.costs]

    def _loses_too_much(self, trial: Trial) -> bool:
        limit = self.budget.limits.get("max_accuracy_drop")
        if limit is None:
            return False
        recovered = _RECOVERED_POINTS * abs(self.runner.baseline)
        return _drop(trial) > (limit * _RECOVERED_SHARE + recovered if self.runner.is_training else limit)


def best_of(budget: Budget, trials: Sequence[Trial]) -> Outcome:
    """The best measured trial: with limits on costs the one that loses least, else the narrowest; or the nearest.

    Args:
        budget: the limits.
        trials: measured trials, those that failed too.
    """
    made = [trial for trial in trials if trial.state == "ok"]
    if not made:
        return Outcome(None, False)
    holding = [trial for trial in made if holds_all(budget, trial)]
    if not holding:
        return Outcome(min(made, key=lambda trial: budget.overshoot(trial.figures)), False)
    return Outcome(min(holding, key=lambda trial: _rank(budget, trial)), True)


def holds_all(budget: Budget, trial: Trial) -> bool:
    """Whether a trial is made and holds every limit."""
    return trial.state == "ok" and not budget.exceeded(trial.figures)


def _rank(budget: Budget, trial: Trial) -> tuple[float, float]:
    drop, macs = _drop(trial), math.inf if trial.macs is None else trial.macs
    return (drop, macs) if budget.costs else (macs, drop)


def _drop(trial: Trial) -> float:
    return math.inf if trial.accuracy_drop is None else trial.accuracy_drop
