"""The slow loop of every strategy: which trials are trained and measured on their files, and which of them is best.

A model is trained in parts, each of which ends with a file that is measured. One that is clearly behind after its first
part is stopped: successive halving (Jamieson and Talwalkar, Non-stochastic Best Arm Identification, 2016). How much of
a loss the rest of the training makes up for is learned from the models of this search that were trained to the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from edgeprune.search.budget import FILE_SIZES, Budget
from edgeprune.search.engines.runner import Runner, Settings
from edgeprune.search.strategies.directions import Directions
from edgeprune.search.trial.record import Trial

# The share of a loss after the first part of the training that is left after the last one, until it is known.
_LEFT_BY_TRAINING, _LEAST_LEFT = 0.4, 0.1
# Where a file of 4 bits loses too much, of the bytes between it and that of 8 bits, what layers of 8 bits may have.
_WIDER = (1 / 3, 2 / 3)
# Of the allowed drop, what the doubt about a drop may use up at most.
_MOST_DOUBT = 1 / 3


class NotWrittenError(ValueError):
    """Not even the original can be made into a file, so that no narrower model can."""


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
        directions: how they may be quantized, and how long they are trained.
        most: how many models beside the original are measured at most. One that is the same as one before, as two
            shares of the MACs may round to the same widths, does not count.

    Attributes:
        way: the number of the way to quantize that the original's file is best in.
        trials: those that were measured.
    """

    def __init__(self, runner: Runner, budget: Budget, directions: Directions, most: int) -> None:
        self._runner, self._budget, self._directions, self._most = runner, budget, directions, most
        self._num_models = 0
        self._parts = directions.parts if runner.is_training else ()
        self._left: list[float] = []  # of a loss after the first part, after the last one
        self.way = 0
        self.trials: list[Trial] = []

    def measure_whole(self) -> Trial:
        """Measure the original, in the first way to quantize that leaves half of the allowed drop to the cut.

        Raises:
            NotWrittenError: it fails in every way.
        """
        made: list[Trial] = []
        for way in (0, *self._directions.ways_after(0)):
            if not self._has_time_for(way):
                continue
            made += self._runner.measured([{"target_macs": 1.0, "way": way}])
            self.way = way
            if drop_of(made[-1]) <= self._allowed / 2:
                break
        else:
            if all(trial.state == "failed" for trial in made):
                errors = "; ".join(dict.fromkeys(trial.error.rstrip(".") for trial in made if trial.error))
                raise NotWrittenError(
                    f"The original cannot be made into a file in any way that was asked for: {errors}."
                )
            self.way = min(made, key=drop_of).settings["way"]
        self.trials += made
        return next(trial for trial in made if trial.settings["way"] == self.way)

    def holds_in_four_bits(self) -> bool:
        """Measure the original in 4 bits, where bytes are limited; whether that leaves half of the drop to no cut."""
        if not {*FILE_SIZES} & {*self._budget.costs}:
            return False
        made: list[Trial] = []
        for way in self._directions.untrained_four_bits:
            if way != self.way:
                made += self._runner.measured([{"target_macs": 1.0, "way": way}])
                made += self._within_bytes(made[-1])
        self.trials += made
        most = self._allowed / 2
        return math.isfinite(most) and any(holds_all(self._budget, one) and drop_of(one) <= most for one in made)

    def measure(self, settings: Settings) -> Trial:
        """Train and measure a model; where it holds and its file does not, also in the next ways to quantize it."""
        way = self._directions.untrained(settings["way"])
        if self._runner.is_training:
            self._runner.quick([{**settings, "way": way}])  # known mostly; it tells how well such trials rank
        made = list(self._trained({**settings, "way": way}))
        self._num_models += made[0].number not in {trial.number for trial in self.trials}
        if self._falls_short_by_rounding(made[-1]):
            made += self._within_bytes(made[-1])
        made += self._quantized(made[-1], [one for one in self._directions.ways_after(way) if one >= settings["way"]])
        self.trials += made
        return min(made, key=drop_of)

    def have_room(self) -> bool:
        """Whether another model may be measured: the first always is, and later ones where there is time for them."""
        return self._num_models < self._most and (not self._num_models or self._has_time())

    def _has_time(self) -> bool:
        """Whether there is time to train another model to the end."""
        has_rounding = any(trial.settings["way"] in self._directions.quantize_aware for trial in self.trials)
        rounding = self._directions.rounding_epochs if has_rounding else 0
        return self._runner.has_time("measured", sum(self._parts) + rounding)

    def expected_drop(self, trial: Trial) -> float:
        """What a trial would lose if it were trained to the end."""
        drop = drop_of(trial)
        return drop * self._left_by_training if drop > 0 and self._rest(trial) else drop

    def passes(self, trial: Trial) -> bool:
        """Whether a trial holds every limit, and the drop still would if it were worse by its standard error."""
        if not holds_all(self._budget, trial):
            return False
        doubt = min(trial.drop_error or 0.0, self._allowed * _MOST_DOUBT)
        return drop_of(trial) + doubt <= self._allowed

    def goes_wider(self, trial: Trial) -> bool | None:
        """Within limits on costs: whether what is measured next is to be wider; None where no other can be better."""
        if trial.state == "ok" and broken_costs(self._budget, trial):
            return False
        return None if holds_all(self._budget, trial) else True

    def finish(self) -> Outcome:
        """The best, trained to the end, and in fewer bits or more; what there is no time for is left out."""
        found = self.outcome()
        if found.best is None or not found.holds:
            return found
        if (rest := self._rest(found.best)) and self._runner.has_time("measured", rest):
            self.trials += self._runner.measured([self._continued(found.best, found.best.settings["way"], rest)])
        best = self.outcome().best
        if best is not None and self._budget.costs:
            self.trials += self._within_bytes(best)
        elif best is not None and self._can_continue(best):
            self._narrow(best)
        return self.outcome()

    def _narrow(self, best: Trial) -> None:
        """Files of 4 bits of a trained model, where these are not what is tried first."""
        for way in () if 0 in self._directions.four_bits else self._directions.untrained_four_bits:
            made = self._runner.measured([self._continued(best, way)])
            made += self._quantized(made[-1], self._directions.ways_after(way))
            if not any(map(self.passes, made)):
                made += self._between(made[0], best)
            self.trials += made

    def _between(self, narrow: Trial, wide: Trial) -> Iterator[Trial]:
        """Files of a model with layers of 4 bits and of 8, the smallest first, until one passes."""
        if narrow.size is None or wide.size is None:  # it was not made
            return
        for share in _WIDER:
            (made,) = self._runner.measured([self._with_more(narrow, round(share * (wide.size - narrow.size)))])
            yield made
            if self.passes(made):
                return

    def _within_bytes(self, trial: Trial) -> Iterator[Trial]:
        """The same model with 8 bits for the layers that gain most, where a file of 4 bits leaves bytes for that."""
        is_plain = trial.settings["way"] in self._directions.untrained_four_bits and "more_bytes" not in trial.settings
        if is_plain and trial.state == "ok" and not broken_costs(self._budget, trial):
            if left := self._budget.bytes_left(trial.figures):
                yield from self._runner.measured([self._with_more(trial, left)])

    def _with_more(self, trial: Trial, more_bytes: int) -> Settings:
        return {**self._continued(trial, trial.settings["way"]), "more_bytes": more_bytes}

    def outcome(self) -> Outcome:
        """The best: with limits on costs the one that loses least, else the narrowest; or the nearest."""
        made = [trial for trial in self.trials if trial.state == "ok"]
        if not made:
            return Outcome(None, False)
        holding = [trial for trial in made if holds_all(self._budget, trial)]
        if not holding:
            return Outcome(min(made, key=lambda trial: self._budget.overshoot(trial.figures)), False)
        return Outcome(min(holding, key=self._rank), True)

    def _trained(self, settings: Settings) -> Iterator[Trial]:
        """A model after each part of its training, until more of it is not worth its time."""
        first, *rest = self._parts or (0,)
        (last,) = self._runner.measured([{**settings, "epochs": first} if first else settings])
        yield last
        for epochs in rest if self._can_continue(last) else ():
            if not self._is_worth_training(last) or not self._runner.has_time("measured", epochs):
                return
            (made,) = self._runner.measured([self._continued(last, settings["way"], epochs)])
            if made.state == "ok" and _float_drop(last) > 0:
                self._left.append(_float_drop(made) / _float_drop(last))
            yield (last := made)

    def _quantized(self, trained: Trial, ways: list[int]) -> Iterator[Trial]:
        """The files of a trained model in other ways, until one does not lose too much by rounding."""
        last = trained
        for way in ways:
            if not self._falls_short_by_rounding(last):
                break
            if not self._has_time_for(way):
                continue
            (last,) = self._runner.measured([self._continued(trained, way)])
            yield last

    def _has_time_for(self, way: int) -> bool:
        """Whether there is time for the training that a way to quantize a trained model asks for."""
        is_trained_for = way in self._directions.quantize_aware
        return not is_trained_for or self._runner.has_time("measured", self._directions.rounding_epochs)

    def _continued(self, trial: Trial, way: int, epochs: int = 0) -> Settings:
        """The settings of a model that is made from a trial's."""
        more = {"epochs": epochs, "after": trial.number}
        return {**{name: value for name, value in trial.settings.items() if name not in more}, "way": way, **more}

    def _can_continue(self, trial: Trial) -> bool:
        """Whether what a trial left are the weights of a float model that was cut."""
        is_whole = trial.settings.get("target_macs") == 1.0 and not trial.settings.get("num_blocks")
        return not is_whole and trial.settings["way"] not in self._directions.quantize_aware

    def _rest(self, trial: Trial) -> int:
        """How many epochs a model was not trained for."""
        is_first = bool(trial.settings.get("epochs")) and "after" not in trial.settings
        return sum(self._parts[1:]) if is_first and trial.state == "ok" and self._can_continue(trial) else 0

    def _is_worth_training(self, trial: Trial) -> bool:
        """Whether the rest of the training may decide: it does not pass already, and is not clearly behind."""
        if trial.state != "ok" or broken_costs(self._budget, trial):
            return False
        expected = _float_drop(trial) * self._left_by_training
        if self._budget.costs:
            others = [drop_of(one) for one in self.trials if holds_all(self._budget, one)]
            return expected < min(others, default=math.inf)
        return not self.passes(trial) and expected <= self._allowed

    @property
    def _left_by_training(self) -> float:
        return min(1.0, max(_LEAST_LEFT, min(self._left, default=_LEFT_BY_TRAINING)))

    def _rank(self, trial: Trial) -> tuple[float, ...]:
        drop, macs, size = drop_of(trial), _or_inf(trial.macs), _or_inf(trial.size)
        if self._budget.costs:
            return drop, macs
        return (0, macs, size, drop) if self.passes(trial) else (1, drop, macs)

    def _falls_short_by_rounding(self, trial: Trial) -> bool:
        """Whether a file loses more than is allowed, and its Keras model does not."""
        return trial.state == "ok" and drop_of(trial) > self._allowed and _float_drop(trial) <= self._allowed

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


def _float_drop(trial: Trial) -> float:
    """How much worse the Keras model of a file is: what the file loses, less what its rounding does."""
    if trial.score is None or trial.float_score is None:
        return drop_of(trial)
    return drop_of(trial) - abs(trial.float_score - trial.score)


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value


# Without training a model loses more than it will: what the quick judgement allows beside the limit, of the original's
# score. It is a guess, which chooses the first model that is trained and no other.
_RECOVERED_SHARE, _RECOVERED_POINTS = 3.0, 0.2


def quick_drop_allowed(budget: Budget, runner: Runner) -> float:
    """How much a quick trial may lose for its file to hold the limit once it is trained."""
    limit = budget.limits.get("max_accuracy_drop", math.inf)
    return limit * _RECOVERED_SHARE + _RECOVERED_POINTS * abs(runner.baseline) if runner.is_training else limit
