"""The guided search on models whose costs and losses are formulas, and its rank correlation."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search.formula import Formula, share_of

from edgeprune.search.budget import Budget
from edgeprune.search.compress_result import rank_correlation
from edgeprune.search.strategies.directions import Directions
from edgeprune.search.strategies.finalists import Finalists, NotWrittenError
from edgeprune.search.strategies.guided import ShareLoss, guided, next_share
from edgeprune.search.trial.record import Candidate, Trial


def search(budget, num_trials=40, num_finalists=6, directions=None, **formula):
    runner = Formula(budget, **formula)
    found = guided(
        runner, budget, directions or Directions(epochs=6), num_trials=num_trials, num_finalists=num_finalists
    )
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


@pytest.mark.parametrize("most", [55, 38])
def test_blocks_are_removed_where_no_width_fits(most):
    settings = {"directions": Directions(num_blocks=3), "blocks": 0.6, "num_trials": 24, "num_finalists": 3}
    found, runner = search(Budget(max_size=most, max_accuracy_drop=10), unreachable=0.2, **settings)
    assert found.holds and found.best.settings["num_blocks"] >= {55: 1, 38: 2}[most]
    # Where that is not enough either, what comes nearest is measured.
    found, _ = search(Budget(max_size=20, max_accuracy_drop=10), unreachable=0.2, **settings)
    assert not found.holds and found.best.settings["num_blocks"] == 3 and found.best.figures["size"] < 32


def test_widths_that_cannot_be_made_are_recorded_and_passed_over():
    found, runner = search(Budget(max_accuracy_drop=3.0), unreachable=0.2)
    assert found.holds and 0.2 <= found.best.settings["target_macs"] < 0.25
    assert any(trial.error for trial in runner.trials)
    with pytest.raises(NotWrittenError, match=r"The original cannot be made into a file in any way .*: ValueError: no"):
        search(Budget(max_accuracy_drop=1.0), unreachable=2.0)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 0.9), st.sampled_from([{"max_accuracy_drop": 3.0}, {"max_size": 50}, {"max_size": 4}]))
def test_no_trial_is_spent_on_widths_that_cannot_be_made(least, limits):
    budget, asked = Budget(**limits), []

    def least_share(wanted):
        asked.append(wanted.get("num_blocks", 0))
        return least

    runner = Formula(budget, unreachable=least)
    directions = Directions(num_blocks=1)
    found = guided(runner, budget, directions, num_trials=24, num_finalists=4, least_share=least_share)
    assert found.best is not None and not [trial.error for trial in runner.trials if trial.error]
    assert len(asked) == len(set(asked))  # once for what has a least share of its own
    if "max_accuracy_drop" in limits:  # all of them hold: the narrowest there is was found
        assert found.best.settings["target_macs"] < least * 1.06 + 1e-4


def measured(runner):
    return [one for one in runner.trials if one.stage == "measured" and one.settings.get("target_macs", 0) < 1]


def test_a_model_that_is_clearly_behind_is_stopped_after_its_first_part():
    budget = Budget(max_accuracy_drop=0.05)
    runner = Formula(budget, training=True)
    finalists = Finalists(runner, budget, Directions(epochs=6), 3)
    stopped = finalists.measure({"target_macs": 0.2, "weighed_by": "l2", "way": 0})  # loses 0.36, of 0.4
    assert measured(runner) == [stopped] and stopped.settings["epochs"] == 2 and not finalists.passes(stopped)
    assert finalists.expected_drop(stopped) == pytest.approx(0.4 * 0.36)
    first = finalists.measure({"target_macs": 0.5, "weighed_by": "l2", "way": 0})  # 0.09, then 0.05
    last = runner.trials[-1]
    before = measured(runner)[1]
    whole = {**before.settings, "epochs": 4, "after": runner.trials.index(before)}
    assert first == last and last.settings == whole
    # Each has been judged without training too, so that it is known how well that ranks.
    assert [one.settings["target_macs"] for one in runner.trials if one.stage == "quick"] == [0.2, 0.5]
    assert finalists.expected_drop(stopped) == pytest.approx(0.36 * 0.5 / 0.9)  # as that one has shown
    passing = finalists.measure({"target_macs": 0.8, "weighed_by": "l2", "way": 0})  # 0.0225
    assert finalists.passes(passing) and passing == runner.trials[-1] and passing.settings["epochs"] == 2
    assert finalists.finish().best.settings == whole


def test_after_a_pass_a_narrower_one_is_trained_and_after_a_failure_one_in_between():
    _, runner = search(Budget(max_accuracy_drop=0.05), training=True, num_finalists=5)
    shares = list(dict.fromkeys(one.settings["target_macs"] for one in measured(runner)))
    low, high = 0.0, 1.0
    for share in shares:
        assert low < share < high
        last = [one for one in measured(runner) if one.settings["target_macs"] == share][-1]
        low, high = (low, share) if last.accuracy_drop <= 0.05 else (share, high)
    assert 3 <= len(shares) <= 5 and low < 1 / (1 + 2 * 0.05 / 0.09) < high < 1.12 * low


def test_a_drop_that_may_be_beyond_the_limit_on_other_samples_does_not_pass():
    class Doubtful(Formula):
        def _trial(self, stage, asked, lost):
            made = super()._trial(stage, asked, lost)
            return replace(made, drop_error=0.01)

    budget = Budget(max_accuracy_drop=0.05)
    finalists = Finalists(Doubtful(budget), budget, Directions(), 3)
    sure, unsure = (finalists.measure({"target_macs": share, "way": 0}) for share in (0.75, 0.68))
    assert sure.accuracy_drop < 0.04 < unsure.accuracy_drop < 0.05
    assert finalists.passes(sure) and not finalists.passes(unsure)
    assert finalists.outcome().best == sure


@given(st.floats(0.05, 1.0), st.floats(0, 0.02), st.none() | st.tuples(st.floats(0.01, 0.99), st.floats(0, 1)))
def test_the_next_share_lies_between_what_passed_and_what_failed(passed, drop, failed):
    failed = failed and ShareLoss(failed[0] * passed, failed[1])
    found = next_share(ShareLoss(passed, drop), failed, 0.007, 0.02)
    if found is not None:
        assert (failed.share if failed else 0.0199) < found < passed
    elif failed is None:
        assert passed < 0.02 * 1.051


def test_the_best_file_is_written_with_4_bits_too_where_that_was_asked_for():
    class Narrow(Formula):
        narrow = (1, 2)

    budget, directions = Budget(max_accuracy_drop=0.3), Directions(num_ways=3, four_bits=(1, 2), quantize_aware=(2,))
    runner = Narrow(budget)
    found = guided(runner, budget, directions, num_trials=40, num_finalists=3)
    assert found.holds and found.best.settings["way"] == 1 and found.best.settings["epochs"] == 0
    best_of_8 = runner.trials[found.best.settings["after"]]
    assert found.best.macs == best_of_8.macs and found.best.size < best_of_8.size
    assert sum(one.settings["way"] in (1, 2) for one in runner.trials) == 1


class Bits(Formula):
    """The second way has 4 bits: 0.6 of the size, and a loss that falls with the bytes for layers of 8 bits."""

    narrow = (1,)
    loss = 0.2  # with 4 bits alone

    def _trial(self, stage, asked, lost):
        made = super()._trial(stage, asked, lost)
        if stage == "quick" or asked["way"] != 1 or made.state != "ok":
            return made
        more = asked.get("more_bytes", 0)
        share = min(1.0, more / (100 * share_of(asked) * 0.4))  # of the bytes between the two
        score = made.float_score - self.loss * (1 - share)
        found = replace(made, size=made.size + more, score=score, accuracy_drop=1 - score)
        self.trials[made.number] = found
        return found


def bits_search(**limits):
    budget = Budget(**limits)
    runner = Bits(budget)
    directions = Directions(num_ways=2, four_bits=(1,))
    return guided(runner, budget, directions, num_trials=24, num_finalists=3), runner


def test_where_fewer_bits_are_enough_nothing_is_cut():
    found, runner = bits_search(max_size=85, max_accuracy_drop=0.16)
    assert found.holds and found.best.settings["target_macs"] == 1.0 and len(runner.trials) == 3
    assert found.best.settings["more_bytes"] == 25 and found.best.size == 85  # all that the limit leaves
    # With 4 bits alone more is lost than half of what is allowed; where the other bytes do not help, it is cut.
    assert runner.trials[1].accuracy_drop == pytest.approx(0.2)
    found, runner = bits_search(max_size=61, max_accuracy_drop=0.16)
    assert found.best.settings["target_macs"] < 1 and found.best.size <= 61


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 99), st.floats(0.01, 0.5))
def test_layers_of_8_bits_use_up_what_a_limit_on_bytes_leaves_and_no_more(size, drop):
    found, runner = bits_search(max_size=size, max_accuracy_drop=drop)
    for trial in runner.trials:
        if more := trial.settings.get("more_bytes"):
            plain = runner.trials[trial.settings["after"]]
            assert plain.size + more <= size < plain.size + more + 1 and trial.accuracy_drop <= plain.accuracy_drop
    if found.holds and found.best.settings["way"] == 1:
        assert found.best.settings.get("more_bytes") or found.best.size > size - 1


@pytest.mark.parametrize(("loss", "sizes"), [(0.05, [30]), (0.2, [30, 36.7]), (0.5, [30, 36.7, 43.3]), (2.0, [50])])
def test_the_fewest_bytes_for_layers_of_8_bits_are_taken_where_the_drop_alone_is_limited(loss, sizes):
    budget = Budget(max_accuracy_drop=0.28)
    runner = Bits(budget)
    runner.loss = loss
    finalists = Finalists(runner, budget, Directions(num_ways=2, four_bits=(1,)), 3)
    finalists.measure_whole()
    eight = finalists.measure({"target_macs": 0.5, "weighed_by": "l2", "way": 0})  # 0.1 lost, of size 50
    best = finalists.finish().best
    assert best.size == pytest.approx(sizes[-1], abs=1) and best.macs == eight.macs
    if len(sizes) > 1:
        tried = [one.size for one in runner.trials if one.settings["way"] == 1]
        assert tried == pytest.approx(sizes, abs=1)


def test_where_the_file_alone_loses_too_much_the_next_way_to_quantize_is_taken():
    two = Directions(num_ways=2)
    found, runner = search(Budget(max_accuracy_drop=0.5), directions=two, rounding=0.4)
    assert found.holds and found.best.settings["way"] == 1
    assert [trial.settings["way"] for trial in runner.trials if trial.stage == "measured"][:2] == [0, 1]
    found, runner = search(Budget(max_accuracy_drop=0.5), directions=two, rounding=0.2)
    assert found.holds and any(trial.settings["way"] == 1 for trial in runner.trials if trial.stage == "measured")
    found, runner = search(Budget(max_accuracy_drop=0.5), directions=two, rounding=0.0)
    assert all(trial.settings["way"] == 0 for trial in runner.trials)


def test_training_for_the_rounding_takes_time_that_is_foreseen():
    class Hasty(Formula):
        def __init__(self, budget, most):
            super().__init__(budget, training=True, rounding=0.2)
            self.most, self.asked = most, []

        def has_time(self, stage, epochs=0):
            self.asked.append(epochs)
            return epochs <= self.most

    budget, directions = Budget(max_accuracy_drop=0.5), Directions(num_ways=3, quantize_aware=(1,), epochs=6)
    ways = {}
    for most in (2, 3):
        runner = Hasty(budget, most)
        finalists = Finalists(runner, budget, directions, 3)
        finalists.measure({"target_macs": 0.2, "way": 0})  # its float file passes, and loses 0.2 more by rounding
        ways[most] = [trial.settings["way"] for trial in measured(runner)]
        assert not finalists.have_room() and runner.asked[-1] == (6 if most == 2 else 9)
    assert ways == {2: [0, 2], 3: [0, 1]}


def test_finer_widths_are_tried_where_the_targets_are_coarse():
    class Coarse(Formula):
        def lost_at(self, asked):
            return super().lost_at(asked) * (0.5 if asked.get("round_to") == 8 else 1)

    budget = Budget(max_accuracy_drop=0.3)
    found = guided(Coarse(budget), budget, Directions(finer_widths=8), num_trials=40, num_finalists=4)
    assert found.holds and found.best.settings["round_to"] == 8


@pytest.mark.parametrize("error", [None, 0.001, 0.2])
def test_finalists_follow_what_is_ahead_at_their_own_share(error):
    class Crossing(Formula):
        def lost_at(self, asked):
            removed = 1 / share_of(asked) - 1
            lost = {"l2": 0.05 * removed, "curves": 0.03 * removed, "local": 0.036 * math.sqrt(removed)}
            return lost[asked.get("weighed_by", "l2")]

        def _trial(self, stage, asked, lost):
            made = super()._trial(stage, asked, lost)
            return replace(made, drop_error=error) if stage == "quick" else made

    budget = Budget(max_accuracy_drop=0.08)
    runner = Crossing(budget)
    found = guided(runner, budget, Directions(), num_trials=40, num_finalists=3)
    judged = {}
    for trial in runner.trials:
        if trial.stage == "quick":
            judged.setdefault(trial.settings["target_macs"], {})[trial.settings["weighed_by"]] = trial.accuracy_drop
    ahead = {share: min(lost, key=lost.get) for share, lost in judged.items() if len(lost) == 3}
    assert list(ahead.values()) == ["curves", "local"]  # where norms begin to hold, and where curves do
    first, second, *others = measured(runner)
    assert first.settings["target_macs"] == min(ahead) and first.settings["weighed_by"] == "local"
    # What may be as good has the second; after it what lost less for what was removed.
    assert second.settings["weighed_by"] == ("curves" if error == 0.2 else "local")
    assert all(trial.settings["weighed_by"] == "local" for trial in others) and found.holds


def test_where_nothing_holds_without_training_models_are_trained():
    class Poor(Formula):
        def lost_at(self, asked):
            return 0.0 if share_of(asked) == 1 else super().lost_at(asked) + (0.5 if "epochs" not in asked else 0)

    budget = Budget(max_accuracy_drop=0.05)
    runner = Poor(budget, training=True)
    found = guided(runner, budget, Directions(epochs=6), num_trials=24, num_finalists=3)
    assert measured(runner)[0].settings["target_macs"] == 0.7 and found.holds and found.best.macs < 1000
    untrained = Poor(budget)
    assert guided(untrained, budget, Directions(), num_trials=24, num_finalists=3).best.macs == 1000
    assert not measured(untrained)


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


class WiderInFourBits(Formula):
    """Files of 4 bits have room for more channels, which lose more without training and less after it."""

    narrow = (1,)

    def lost_at(self, asked):
        return super().lost_at(asked) * (4.0 if asked["way"] == 1 else 1.0)

    def _left(self, asked):
        return super()._left(asked) * (0.3 if asked["way"] == 1 else 1.0)


@pytest.mark.parametrize("num_trials", [9, 40])
def test_each_way_to_quantize_is_trained_before_one_is_followed(num_trials):
    budget, directions = Budget(max_size=40, max_accuracy_drop=0.01), Directions(2, four_bits=(1,), epochs=6)

    def searched(is_training):
        runner = WiderInFourBits(budget, training=is_training)
        return guided(runner, budget, directions, num_trials=num_trials, num_finalists=4), runner

    found, runner = searched(is_training=True)
    assert [one.settings["way"] for one in measured(runner) if "after" not in one.settings][:2] == [0, 1]
    assert found.best.settings["way"] == 1 and found.best.settings["target_macs"] > 0.5
    # Without training, what loses least by then is all that there is.
    _, runner = searched(is_training=False)
    assert {one.settings["way"] for one in measured(runner)} == {0}
