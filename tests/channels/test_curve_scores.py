"""Plans weighed by curves: the channels go whose predicted drop for what they save is smallest."""

import keras
import numpy as np
import pytest

import edgeprune as ep
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.curve_scores import GroupCurves, curve_scores


class Curves:
    """What each channel of a group adds to the drop."""

    def __init__(self, **drops):
        self.drops = drops

    def drop_per_channel(self, name, removed):
        return np.array(self.drops[name], float)[np.floor(removed).astype(int)] if name in self.drops else None


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    dense = [layers.Dense(units, name=name) for units, name in ((4, "a"), (4, "b"), (2, "head"))]
    return keras.Sequential([keras.Input((6,)), *dense])


def scores_of(model, curves, kind, scores=(4.0, 1.0, 3.0, 2.0)):
    graph = trace(model)
    own = np.zeros(graph.class_count)
    a, b = (group.classes for group in graph.groups if group.frozen is None)
    own[a] = own[b] = scores
    made = curve_scores(graph, own, curves, kind)
    return made[a], made[b]


def test_a_channel_costs_what_its_removal_adds_to_the_drop(model):
    curves = Curves(a=[1, 2, 4, 8], b=[0.5, 1, 0, 4])
    a, b = scores_of(model, curves, "pruning_ratio")
    np.testing.assert_allclose(a, [8, 1, 4, 2], rtol=1e-6)  # the least important one, of score 1, goes first
    np.testing.assert_allclose(b, [4, 0.5, 1, 1], rtol=1e-6)  # past a cliff nothing is cheap
    assert b[2] > b[3]


def test_a_drop_counts_for_what_it_saves(model):
    curves = Curves(a=[1, 1, 1, 1], b=[1, 1, 1, 1])
    a, b = scores_of(model, curves, "target_macs")
    np.testing.assert_allclose(a, 1 / (6 + 4), rtol=1e-6)
    np.testing.assert_allclose(b, 1 / (4 + 2), rtol=1e-6)
    a, b = scores_of(model, curves, "target_params")
    np.testing.assert_allclose(a, 1 / (6 + 4 + 1), rtol=1e-6)


def test_a_plan_spares_what_is_sensitive(model):
    assert isinstance(Curves(), GroupCurves) and not isinstance("global", GroupCurves)
    steep, flat = [5, 5, 5, 5], [0.1, 0.1, 0.1, 0.1]
    for curves, spared in ((Curves(a=steep, b=flat), "a"), (Curves(a=flat, b=steep), "b")):
        plan = ep.plan_channels(model, pruning_ratio=0.25, scope=curves)
        assert {row.name: row.after for row in plan.planned} == {"a": 2, "b": 2, spared: 4}


def test_the_curves_of_sensitivity_are_accepted(model, rng):
    x = rng.normal(size=(32, 6)).astype(np.float32)
    curves = ep.sensitivity(model, x)
    assert isinstance(curves, GroupCurves)
    plan = ep.plan_channels(model, target_params=0.8, scope=curves)
    assert plan.params.after < plan.params.before
    ep.ChannelPruning(ep.ConstantSparsity(0.5, 0), target_macs=0.5, scope=curves)


def test_a_group_without_a_curve_is_named(model):
    with pytest.raises(ValueError, match="no curve for group 'b': measure the curves"):
        ep.plan_channels(model, pruning_ratio=0.25, scope=Curves(a=[0] * 4))
    plan = ep.plan_channels(model, pruning_ratio=0.25, scope=Curves(a=[0] * 4), ignore="b")
    assert {row.name: row.after for row in plan.planned} == {"a": 3}
