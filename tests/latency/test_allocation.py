import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.latency.allocation import Knapsack, Limit, LimitError, allocate
from edgeprune.latency.cost import CostTerm


def chain(rng, groups, widths, limit, staircase=8):
    """A chain of layers: each reads what the one before makes, at a cost with stairs, like convolutions on tiles."""
    counts = [np.arange(1, widths + 1) * 4 for _ in range(groups)]
    values = [np.cumsum(np.sort(rng.random(widths))[::-1]) for _ in range(groups)]
    adds = [{group: counts[group]} for group in range(groups)]
    factors = rng.integers(1, 9, groups + 1)

    def stairs(count):
        return -(-np.asarray(count) // staircase) * staircase

    def product(factor):
        return lambda a, b: factor * (np.asarray(a) * stairs(b) + 3.0 * np.asarray(b))

    terms = [CostTerm((group, group + 1), product(int(factors[group]))) for group in range(groups - 1)]
    terms.append(CostTerm((0,), lambda a: 5.0 * stairs(a)))
    terms.append(CostTerm((groups - 1,), lambda a: 7.0 * np.asarray(a)))
    whole = sum(float(term.cost(*(counts[line][-1] for line in term.lines))) for term in terms)
    return Knapsack(values, adds, np.zeros(groups, np.int64), [Limit(limit * whole, terms)])


def cost(knapsack, chosen, limit):
    counts = knapsack.counts(np.array(chosen))
    return sum(float(term.cost(*(counts[line] for line in term.lines))) for term in limit.terms)


def holds(knapsack, chosen):
    return all(cost(knapsack, chosen, limit) <= limit.most * (1 + 1e-9) for limit in knapsack.limits)


def brute_force(knapsack):
    every = itertools.product(*(range(len(values)) for values in knapsack.values))
    return max((knapsack.value(np.array(chosen)) for chosen in every if holds(knapsack, chosen)), default=None)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), groups=st.integers(2, 4), limit=st.sampled_from([0.2, 0.35, 0.5, 0.8]))
def test_limits_hold_and_little_is_left_on_the_table(seed, groups, limit):
    knapsack = chain(np.random.default_rng(seed), groups, 5, limit)
    best = brute_force(knapsack)
    if best is None:
        with pytest.raises(LimitError):
            allocate(knapsack)
        return
    chosen = allocate(knapsack)
    assert holds(knapsack, chosen)
    assert knapsack.value(chosen) >= 0.93 * best


def test_it_is_the_best_on_nearly_every_small_chain():
    found = []
    for seed in range(30):
        knapsack = chain(np.random.default_rng(seed), 3, 6, 0.5)
        found.append(knapsack.value(allocate(knapsack)) / brute_force(knapsack))
    assert np.mean(np.array(found) > 1 - 1e-9) > 0.7 and min(found) > 0.93


def test_several_limits_hold_together():
    for seed in range(10):
        knapsack = chain(np.random.default_rng(seed), 4, 5, 0.6)
        # Whatever the first limit says, the sum of all widths may be half at most.
        sums = [CostTerm((line,), lambda count: np.asarray(count, float)) for line in range(4)]
        both = Knapsack(knapsack.values, knapsack.adds, knapsack.fixed, [*knapsack.limits, Limit(40.0, sums)])
        chosen = allocate(both)
        assert holds(both, chosen)
        assert both.value(chosen) >= 0.9 * brute_force(both)


def test_without_need_nothing_is_removed():
    knapsack = chain(np.random.default_rng(0), 3, 5, 1.0)
    assert allocate(knapsack).tolist() == [4, 4, 4]


def test_a_limit_that_cannot_be_held_is_named():
    knapsack = chain(np.random.default_rng(0), 3, 5, 0.001)
    with pytest.raises(LimitError) as raised:
        allocate(knapsack)
    assert raised.value.limit == 0
    assert raised.value.least == pytest.approx(cost(knapsack, [0, 0, 0], knapsack.limits[0]))


def test_steps_are_filled():
    """Two channels more at the same time are taken: the widths stand at the edges of the stairs."""
    values = [np.arange(1.0, 17.0)]
    stairs = CostTerm((0,), lambda count: np.ceil(np.asarray(count) / 8) * 8.0)
    knapsack = Knapsack(values, [{0: np.arange(1, 17)}], np.zeros(1, np.int64), [Limit(9.0, [stairs])])
    assert np.arange(1, 17)[allocate(knapsack)[0]] == 8
