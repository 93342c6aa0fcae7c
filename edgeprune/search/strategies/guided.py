"""The guided search: deterministic, by bisection on the share of the MACs, first without training, then with it.

What a model costs and what it loses both move one way with its width, so that each limit has a width where it begins to
hold. Where costs are limited the widest model that holds them is the one that loses least; where only the loss is
limited it is the narrowest that holds it. How much each group loses at one share is ranked in several ways: by measured
curves, by the norms of the channels, with whole blocks removed, with zeros, and, within limits on time and memory, by a
knapsack over the costs of operators. The one that keeps most without training, at the share where trained models
begin, is followed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgeprune.search.budget import Budget
from edgeprune.search.engines.runner import Runner, Settings
from edgeprune.search.strategies.directions import SPARSITIES, Directions
from edgeprune.search.strategies.finalists import (
    Finalists,
    Outcome,
    broken_costs,
    drop_of,
    holds_all,
    quick_drop_allowed,
)
from edgeprune.search.trial.record import Trial

NARROWEST = 0.02
_WEIGHINGS = ("l2", "curves", "local")  # of several that lose the same the first is followed
_FIRST_SHARE = 0.7
_CLOSE = 1.05  # shares whose quotient is less are one
_QUICK_STEPS, _MORE_STEPS = 5, 4
# Trained models: of the allowed drop, what is aimed at; shares whose quotient is less are near; how far from both ends
# of an interval the next one is, of its length; how a share may shrink at once, and shrinks at least.
_AIMED_AT, _NEAR, _MARGIN, _LARGEST_STEP, _SMALLEST_STEP = 0.7, 1.12, 0.25, 0.55, 0.88
_MOST_BLOCKS = 3


def guided(
    runner: Runner,
    budget: Budget,
    directions: Directions,
    *,
    num_trials: int,
    num_finalists: int,
    least_share: Callable[[Settings], float] = lambda settings: 0.0,
) -> Outcome:
    """Search.

    Args:
        runner: makes the trials.
        budget: the limits.
        directions: what may be done beside widths.
        num_trials: different quick trials at most.
        num_finalists: models that are trained and measured at most, beside the original.
        least_share: returns the least share of the MACs that can be made with what else settings ask for.

    Returns:
        The best measured trial.
    """
    return _Guided(runner, budget, directions, num_trials, num_finalists, least_share).outcome()


class _Guided:
    def __init__(
        self,
        runner: Runner,
        budget: Budget,
        directions: Directions,
        num_trials: int,
        num_finalists: int,
        least_share: Callable[[Settings], float],
    ) -> None:
        self.runner, self.budget, self.directions = runner, budget, directions
        self.quick_left = num_trials
        self.finalists = Finalists(runner, budget, directions, num_finalists)
        self._least_share = least_share
        self._floors: dict[Any, float] = {}  # by what else is asked for, the least share that can be made
        self._quick: list[Trial] = []

    def outcome(self) -> Outcome:
        """Search."""
        whole = self.finalists.measure_whole()
        if self.budget.costs and holds_all(self.budget, whole):
            return Outcome(whole, True)  # nothing has to be cut
        if self.finalists.holds_in_four_bits():
            return self.finalists.outcome()
        if self.budget.costs:
            starts = self._starts_within_costs()
            self._widest_within([one for one in starts if one.share < 1 or "within" in one.settings])
        else:
            followed, share = self._start_by_loss()
            if share < 1:
                self._narrowest(followed, share)
        return self.finalists.finish()

    def _start_by_loss(self) -> tuple[list[Settings], float]:
        """How groups are weighed and what else is removed, the best first, and the share of the MACs that may hold."""
        by_norms: Settings = {"weighed_by": "l2", "way": self.finalists.way}
        share, held = self._bisected(by_norms, self._floor(by_norms), 1.0, _QUICK_STEPS)
        if held is None:
            share = max(_FIRST_SHARE, self._floor(by_norms))
        ahead = self._ahead([by_norms, *self._others()], share)
        followed, trial = ahead[0] if ahead else (by_norms, held)
        # Training makes up for more than the quick judgement dares to count on: where nothing holds it decides.
        if held is not None or not self.runner.is_training:
            holds = trial is not None and drop_of(trial) <= quick_drop_allowed(self.budget, self.runner)
            low, high = (max(self._floor(followed), share / 3), share) if holds else (share, 1.0)
            found_share, found = self._bisected(followed, low, high, _MORE_STEPS)
            if found is None and not holds:
                return [followed], 1.0
            share = share if found is None else found_share
        return self._followed_at(followed, share), share

    def _followed_at(self, followed: Settings, share: float) -> list[Settings]:
        """How groups are best weighed at the share where finalists begin, and next to that if it may be as good."""
        ahead = self._ahead([{**followed, "weighed_by": one} for one in _WEIGHINGS], share)
        if not ahead:
            return [followed]
        (best, least), *others = ahead
        most = drop_of(least) + (least.drop_error or 0.0)
        return [best, *[one for one, trial in others if trial.number != least.number and drop_of(trial) <= most][:1]]

    def _ahead(self, several: Sequence[Settings], share: float) -> list[tuple[Settings, Trial]]:
        """What can be made of a share of the MACs, judged without training: what loses least first."""
        possible = [one for one in several if share >= self._floor(one)]
        if self.runner.has_time("quick"):  # at once, where there are workers for it
            self.runner.quick([{**one, "target_macs": share} for one in possible[: self.quick_left]])
        tried = [(one, self._tried(one, share)) for one in possible]
        made = [(one, trial) for one, trial in tried if trial is not None and trial.state == "ok"]
        return sorted(made, key=lambda pair: drop_of(pair[1]))

    def _starts_within_costs(self) -> list[Start]:
        """What may be trained within the limits: what loses least without training, of each way to quantize.

        Each way to weigh groups has a share of its own at which it is small enough; there they are compared. Fewer bits
        leave room for more channels, and how much of a loss training makes up for grows with these: so that where
        models are trained, each way to quantize is, before one of them is followed.
        """
        by_norms: Settings = {"weighed_by": "l2", "way": self.finalists.way}
        share, trial = self._bisected(by_norms, self._floor(by_norms), 1.0, _QUICK_STEPS)
        found = [] if trial is None else [(Start(by_norms, share), trial)]
        others = self._others()
        if trial is None:  # no width fits: other widths will not
            others.sort(key=lambda other: "num_blocks" not in other)
        for other in others:
            low, high = max(self._floor(other), share / 2), min(1.0, share * 4)
            own_share, trial = self._bisected(other, low, high, _MORE_STEPS)
            if trial is not None:
                found.append((Start(other, own_share), trial))
        if self.directions.plans_within:
            own_share, trial = self._within(by_norms)
            if trial is not None:
                found.append((Start({**by_norms, "within": own_share}, own_share), trial))
        if not found:
            return [self._nearest() or Start(by_norms, share)]
        found.sort(key=lambda one: drop_of(one[1]))
        best_of_way = {start.settings["way"]: start for start, _ in reversed(found)}
        starts = [start for start, _ in found if best_of_way[start.settings["way"]] is start]
        return starts if self.runner.is_training else starts[:1]

    def _nearest(self) -> Start | None:
        """What came nearest to the limits on costs, with its share of the MACs; None where nothing was made."""
        made = [trial for trial in self._quick if trial.state == "ok" and "target_macs" in trial.settings]
        if not made:
            return None
        nearest = min(made, key=lambda trial: self.budget.overshoot({**trial.figures, "accuracy_drop": 0.0}))
        settings = dict(nearest.settings)
        share = settings.pop("target_macs")
        return Start(settings, share)

    def _others(self) -> list[Settings]:
        """What else may be done at one share of the MACs; first what changes most."""
        directions = self.directions
        found: list[Settings] = []
        if self.budget.costs:
            narrow = [way for way in directions.untrained_four_bits if way != self.finalists.way]
            found += [{"weighed_by": "l2", "way": way} for way in narrow]
        found += [{"weighed_by": one, "way": self.finalists.way} for one in _WEIGHINGS[1:]]
        if directions.finer_widths is not None:
            finer = {"way": self.finalists.way, "round_to": directions.finer_widths}
            found += [{"weighed_by": one, **finer} for one in ("l2", "curves")]
        for count in range(1, min(directions.num_blocks, _MOST_BLOCKS) + 1):
            found.append({"weighed_by": "l2", "way": self.finalists.way, "num_blocks": count})
        if directions.compresses_zeros:
            found += [{"weighed_by": "l2", "way": self.finalists.way, "sparsity": one} for one in SPARSITIES]
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
                self._floors[_kind(settings)], low = round(share * _CLOSE, 4), share
            elif self.budget.costs:
                if broken_costs(self.budget, trial):
                    high = share
                else:
                    low, best = share, (share, trial)  # it fits: perhaps a wider one does
            elif drop_of(trial) > quick_drop_allowed(self.budget, self.runner):
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
            if not broken_costs(self.budget, trial):
                return round(share, 4), trial
            share /= 1 + self.budget.overshoot({**trial.figures, "accuracy_drop": 0.0}) + 0.02
        return share, None

    def _floor(self, settings: Settings) -> float:
        kind = _kind(settings)
        if kind not in self._floors:
            self._floors[kind] = max(NARROWEST, math.ceil(1e4 * self._least_share(settings)) / 1e4)
        return self._floors[kind]

    def _tried(self, settings: Settings, share: float) -> Trial | None:
        return self._made({**settings, "target_macs": share})

    def _made(self, settings: Settings) -> Trial | None:
        if self.quick_left < 1 or not self.runner.has_time("quick"):
            return None
        (made,) = self.runner.quick([settings])
        self.quick_left -= made.number not in {trial.number for trial in self._quick}
        self._quick.append(made)
        return made

    def _narrowest(self, followed: Sequence[Settings], share: float) -> None:
        """Trained models: what each of them lost says how narrow the next one is, and which settings it follows."""
        allowed = self.budget.limits["max_accuracy_drop"]
        passed, failed = ShareLoss(1.0, 0.0), None
        lost = [-math.inf] * len(followed)  # for what was removed; each is followed once before the better one is
        while self.finalists.have_room():
            place = lost.index(min(lost))
            trial = self.finalists.measure({**followed[place], "target_macs": share})
            lost[place] = max(lost[place], self.finalists.expected_drop(trial) / (1 / share - 1))
            if self.finalists.passes(trial):
                passed = ShareLoss(share, drop_of(trial))
            else:
                failed = ShareLoss(share, self.finalists.expected_drop(trial))
            found = next_share(passed, failed, _AIMED_AT * allowed, self._floor(followed[0]))
            if found is None:
                break
            share = found

    def _widest_within(self, starts: Sequence[Start]) -> None:
        """Trained models within limits on costs: by bisection from the share that the quick ones came to."""
        tried: list[tuple[Trial, Start]] = []
        for start in starts:
            if self.finalists.have_room():
                tried.append((self.finalists.measure(start.at(start.share)), start))
        if not tried:
            return
        trial, start = min(tried, key=lambda one: self._behind(one[0]))
        low, share, high = max(self._floor(start.settings), start.share / 3), start.share, 1.0
        while (goes_wider := self.finalists.goes_wider(trial)) is not None and self.finalists.have_room():
            low, high = (share, high) if goes_wider else (low, share)
            share = round(math.sqrt(low * high), 4)
            if high / low < _CLOSE:
                break
            trial = self.finalists.measure(start.at(share))

    def _behind(self, trial: Trial) -> tuple[int, float]:
        """By what trials within limits on costs are compared: how many they break, and what they lose once trained."""
        return len(broken_costs(self.budget, trial)), self.finalists.expected_drop(trial)


def _kind(settings: Settings) -> tuple[Any, ...]:
    """What decides how narrow a model can be."""
    return settings.get("round_to"), settings.get("num_blocks", 0)


class Start(NamedTuple):
    """Where the trained models begin: how groups are weighed and what else is removed, and the share of the MACs."""

    settings: Settings
    share: float

    def at(self, share: float) -> Settings:
        """The settings of a model, at a share of the MACs, or of what the limits leave."""
        return {**self.settings, "within" if "within" in self.settings else "target_macs": share}


class ShareLoss(NamedTuple):
    """What a model of a share of the MACs loses once it is trained."""

    share: float
    drop: float


def next_share(passed: ShareLoss, failed: ShareLoss | None, aimed_at: float, floor: float) -> float | None:
    """The share of the MACs that is to be trained next: where the drop that is aimed at is expected.

    What is lost grows about with the inverse of the share, from nothing at 1.

    Args:
        passed: the narrowest model that passes.
        failed: the widest that does not; None where all passed.
        aimed_at: the drop.
        floor: the least share.

    Returns:
        The share; None where the two are close.

    Example:
        >>> next_share(ShareLoss(0.5, 0.002), ShareLoss(0.25, 0.012), aimed_at=0.007, floor=0.02)
        0.3333
    """
    if failed is None:
        times = aimed_at / passed.drop if passed.drop > 0 else math.inf
        expected = 1 / (1 + (1 / passed.share - 1) * times)
        share = max(min(max(passed.share * _LARGEST_STEP, expected), passed.share * _SMALLEST_STEP), floor)
        return round(share, 4) if passed.share / share >= _CLOSE else None
    if passed.share / failed.share < _NEAR:
        return None
    way = (aimed_at - passed.drop) / (failed.drop - passed.drop) if failed.drop > passed.drop else 0.5
    way = min(1 - _MARGIN, max(_MARGIN, way))
    return round(1 / ((1 - way) / passed.share + way / failed.share), 4)
