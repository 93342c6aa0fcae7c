"""The guided search on models whose costs and losses are formulas, and its rank correlation."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search.formula import Formula

from edgeprune.search.budget import Budget
from edgeprune.search.compress_result import rank_correlation
from edgeprune.search.guided import Directions, guided
from edgeprune.search.trial_record import Candidate, Trial


def search(budget, num_trials=40, num_finalists=6, directions=None, **formula):
    runner = Formula(budget, **formula)
    found = guided(runner, budget, directions or Directions(), num_trials=num_trials, num_finalists=num_finalists)
    return found, runner


@settings(max_examples=40, deadline=None)
@given(st.floats(0.02, 2.0), st.booleans())
def test_with_the_loss_alone_the_narrowest_that_holds_is_found(drop, training):
    found, _ = search(Budget(max_accuracy_drop=drop), training=training)
    exact = 1 / (1 + drop * (2 if training else 1) / 0.09)
    assert found.holds and found.best.stage == "measured" and found.best.settings["weighed_by"] == "curves"
    share = found.best.settings["target_macs"]
    assert share >= 0.98 * exact  # what holds is no narrower
    assert share <= max(1.5 * exact, 1.2 * 0.02 * 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 99))
def test_with_limited_costs_the_widest_that_holds_is_found(size):
    found, runner = search(Budget(max_size=size, max_accuracy_drop=10))
    share = found.best.settings["target_macs"]
    assert found.holds and share * 100 <= size and share * 100 >= 0.8 * size
    assert sum(trial.stage == "measured" for trial in runner.trials) <= 3


def test_what_holds_already_is_not_cut():
    found, runner = search(Budget(max_size=100, max_accuracy_drop=0.01))
    assert found.holds and found.best.settings == {"target_macs": 1.0, "way": 0} and len(runner.trials) == 1


def test_where_none_holds_the_nearest_is_returned():
    found, runner = search(Budget(max_size=5, max_accuracy_drop=0.05))
    assert not found.holds
    nearest = min(
        (trial for trial in runner.trials if trial.stage == "measured"),
        key=lambda trial: Budget(max_size=5, max_accuracy_drop=0.05).overshoot(trial.figures),
    )
    assert found.best == nearest
    found, _ = search(Budget(max_size=1), unreachable=0.3)  # no width that can be made fits
    assert not found.holds and found.best.settings["target_macs"] < 0.5


def test_widths_that_cannot_be_made_are_recorded_and_passed_over():
    found, runner = search(Budget(max_accuracy_drop=3.0), unreachable=0.2)
    assert found.holds and 0.2 <= found.best.settings["target_macs"] < 0.25
    assert any(trial.error for trial in runner.trials)
    found, _ = search(Budget(max_accuracy_drop=1.0), unreachable=2.0)
    assert found.best is None and not found.holds


def test_where_the_file_alone_loses_too_much_the_next_way_to_quantize_is_taken():
    two = Directions(num_ways=2)
    found, runner = search(Budget(max_accuracy_drop=0.5), directions=two, rounding=0.4)
    assert found.holds and found.best.settings["way"] == 1
    assert [trial.settings["way"] for trial in runner.trials if trial.stage == "measured"][:2] == [0, 1]
    found, runner = search(Budget(max_accuracy_drop=0.5), directions=two, rounding=0.2)
    assert found.holds and any(trial.settings["way"] == 1 for trial in runner.trials if trial.stage == "measured")
    found, runner = search(Budget(max_accuracy_drop=0.5), directions=two, rounding=0.0)
    assert all(trial.settings["way"] == 0 for trial in runner.trials)


def test_finer_widths_are_tried_where_the_targets_are_coarse():
    class Coarse(Formula):
        def lost_at(self, asked):
            return super().lost_at(asked) * (0.5 if asked.get("round_to") == 8 else 1)

    budget = Budget(max_accuracy_drop=0.3)
    found = guided(Coarse(budget), budget, Directions(finer_widths=8), num_trials=40, num_finalists=4)
    assert found.holds and found.best.settings["round_to"] == 8


def test_blocks_are_removed_where_that_keeps_more():
    class Deep(Formula):
        def lost_at(self, asked):
            return super().lost_at({**asked, "num_blocks": 0}) * (0.5 if asked.get("num_blocks") == 1 else 1)

    budget = Budget(max_accuracy_drop=0.3)
    runner = Deep(budget)
    found = guided(runner, budget, Directions(num_blocks=2), num_trials=40, num_finalists=4)
    assert found.best.settings["num_blocks"] == 1
    tried = {trial.settings.get("num_blocks", 0) for trial in runner.trials}
    assert tried == {0, 1, 2}


def trials_of(quick, measured):
    pairs = enumerate(zip(quick, measured, strict=True), 1)
    return [
        Trial(0, "measured", {}, Candidate({"stem": width}), quick_score=first, score=second)
        for width, (first, second) in pairs
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
