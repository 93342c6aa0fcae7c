"""The guided search on models whose costs and losses are formulas, and its rank correlation."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.search.budget import Budget
from edgeprune.search.compress import rank_correlation
from edgeprune.search.guided import guided
from edgeprune.search.trial_record import Trial


class Formula:
    """A model of 1,000 MACs and of size 100; the narrower it is, the more it loses, and training halves that."""

    def __init__(self, budget, lost=lambda share: 0.1 * (1 / share - 1), unreachable=0.0, training=False):
        self.trials, self.is_training, self._lost, self._unreachable = [], training, lost, unreachable
        self.costs = [name for name in budget.limits if name != "max_accuracy_drop"]

    def quick(self, target_macs):
        return self._trial("quick", target_macs, self._lost(target_macs))

    def measured(self, target_macs):
        return self._trial("measured", target_macs, self._lost(target_macs) / (2 if self.is_training else 1))

    def _trial(self, stage, share, lost):
        for known in self.trials:
            if (known.stage, known.settings) == (stage, {"target_macs": share}):
                return known
        if share < self._unreachable:
            trial = Trial(len(self.trials), stage, {"target_macs": share}, state="failed", error="ValueError: no")
        else:
            figures = {"score": 1 - lost, "accuracy_drop": lost, "macs": 1000 * share, "size": 100 * share}
            trial = Trial(len(self.trials), stage, {"target_macs": share}, **figures)
        self.trials.append(trial)
        return trial


def search(budget, num_trials=12, num_finalists=6, **formula):
    runner = Formula(budget, **formula)
    found = guided(runner, budget, num_trials=num_trials, num_finalists=num_finalists, say=lambda text: None)
    return found, runner


@settings(max_examples=40, deadline=None)
@given(st.floats(0.02, 2.0), st.booleans())
def test_with_the_loss_alone_the_narrowest_that_holds_is_found(drop, training):
    found, _ = search(Budget(max_accuracy_drop=drop), training=training)
    exact = 1 / (1 + drop * (2 if training else 1) / 0.1)
    assert found.holds and found.best.stage == "measured"
    share = found.best.settings["target_macs"]
    assert share >= 0.98 * exact  # what holds is no narrower
    assert share <= max(1.5 * exact, 1.1 * 0.02 * 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 99))
def test_with_limited_costs_the_widest_that_holds_is_found(size):
    found, runner = search(Budget(max_size=size, max_accuracy_drop=10))
    share = found.best.settings["target_macs"]
    assert found.holds and share * 100 <= size and share * 100 >= 0.9 * size
    assert sum(trial.stage == "measured" for trial in runner.trials) <= 3


def test_what_holds_already_is_not_cut():
    found, runner = search(Budget(max_size=100, max_accuracy_drop=0.01))
    assert found.holds and found.best.settings == {"target_macs": 1.0} and len(runner.trials) == 1


def test_where_none_holds_the_nearest_is_returned():
    found, runner = search(Budget(max_size=5, max_accuracy_drop=0.05))
    assert not found.holds
    nearest = min(
        (trial for trial in runner.trials if trial.stage == "measured"),
        key=lambda trial: Budget(max_size=5, max_accuracy_drop=0.05).overshoot(trial.figures),
    )
    assert found.best == nearest
    found, _ = search(Budget(max_size=1), unreachable=0.3)  # no width that can be made fits
    assert not found.holds and found.best.settings["target_macs"] < 0.4


def test_widths_that_cannot_be_made_are_recorded_and_passed_over():
    found, runner = search(Budget(max_accuracy_drop=3.0), unreachable=0.2)
    assert found.holds and 0.2 <= found.best.settings["target_macs"] < 0.23
    assert any(trial.error for trial in runner.trials)
    found, _ = search(Budget(max_accuracy_drop=1.0), unreachable=2.0)
    assert found.best is None and not found.holds


def trials_of(quick, measured):
    pairs = zip(quick, measured, strict=True)
    return [
        Trial(0, stage, {"target_macs": share}, **{name: score})
        for share, pair in enumerate(pairs)
        for stage, name, score in zip(("quick", "measured"), ("quick_score", "score"), pair, strict=True)
    ]


@pytest.mark.parametrize(
    "quick, measured, expected",
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 0.8),  # 1 - 6 * (1 + 1) / (4 * 15)
        ([1, 1, 2], [5, 5, 6], 1.0),
        ([1, 2], [1, 2], math.nan),
        ([1, 1, 1], [1, 2, 3], math.nan),
    ],
)
def test_the_rank_correlation_is_spearmans(quick, measured, expected):
    assert rank_correlation(trials_of(quick, measured)) == pytest.approx(expected, nan_ok=True)
