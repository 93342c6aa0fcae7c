"""How the scores of coupled layers are reduced to one, against scores of each layer worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgeprune import flavor as flavors
from edgeprune.channels.callback import ChannelPruning
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.channels.plan.importance import class_scores
from edgeprune.channels.plan.planning import plan_channels
from edgeprune.sparsity.schedules import ConstantSparsity


@pytest.fixture(scope="module", params=[flavors.KERAS_3, flavors.TF_KERAS])
def model(request):
    """Two dense layers are added, two norms and two heads read the sum.

    On [1, 1] they give [-1, 1] and [2, 1], the sum is [1, 2], the norms give [1, 4] and [2, 6], the heads 20 and 16.
    """
    keras = flavors.keras_module(request.param)
    layers = keras.layers
    inputs = keras.Input((2,))
    total = layers.Add()([layers.Dense(2, use_bias=False, name=name)(inputs) for name in ("a", "b")])
    ends = []
    for number in (1, 2):
        x = layers.BatchNormalization(center=False, epsilon=1e-12, name=f"norm{number}")(total)
        ends.append(layers.Dense(1, use_bias=False, name=f"head{number}")(x))
    model = keras.Model(inputs, ends)
    for name, values in {
        "a": [[3, 1], [-4, 0]],
        "b": [[0, 1], [2, 0]],
        "norm1": [1, 2],
        "norm2": [2, 3],
        "head1": [[12], [2]],
        "head2": [[-1], [3]],
    }.items():
        model.get_layer(name).weights[0].assign(np.array(values, np.float32))
    return model


# For each importance what the two channels score in a, b, norm1, norm2, head1, head2, those that it looks at.
SCORES = {
    "l1": ([7, 2, 1, 2, 12, 1], [1, 1, 2, 3, 2, 3]),
    "l2": ([5, 2, 1, 2, 12, 1], [1, 1, 2, 3, 2, 3]),
    "bn_scale": ([1, 2], [2, 3]),
    "fpgm": ([math.sqrt(20), math.sqrt(5)], [math.sqrt(20), math.sqrt(5)]),
    "activation": ([1, 2], [4, 6]),
    # With the heads' sum as the loss its slope is [10, 13] at the sum, [12, 2] and [-1, 3] behind the norms.
    "taylor": ([10, 20, 12, 2, 12, 2], [13, 13, 8, 18, 8, 18]),
    "fisher": ([1250, 200, 72, 2, 72, 2], [84.5, 84.5, 32, 162, 32, 162]),
}
REDUCE = {
    "sum": sum,
    "mean": lambda scores: sum(scores) / len(scores),
    "max": max,
    "l2": lambda scores: math.sqrt(sum(score**2 for score in scores)),
}
DATA = (np.ones((1, 2), np.float32), [np.zeros((1, 1), np.float32)] * 2)


def scores_of(model, importance, reduction=None):
    graph = trace(model)
    (group,) = (group for group in graph.groups if group.frozen is None)
    return class_scores(graph, importance, DATA, reduction=reduction, loss="mae")[group.classes]


@pytest.mark.parametrize("importance", SCORES)
def test_each_reduction_of_each_importance(model, importance):
    for reduction, reduce in REDUCE.items():
        expected = [reduce(scores) for scores in SCORES[importance]]
        np.testing.assert_allclose(scores_of(model, importance, reduction), expected, rtol=1e-5, err_msg=reduction)
    own = "l2" if importance == "l2" else "sum"
    np.testing.assert_array_equal(scores_of(model, importance), scores_of(model, importance, own))


def test_lamp_reduces_squared_norms(model):
    squares = ([25, 4, 1, 4, 144, 1], [1, 1, 4, 9, 4, 9])
    for reduction, reduce in REDUCE.items():
        large, small = map(reduce, squares)
        expected = [1, small / (small + large)]
        np.testing.assert_allclose(scores_of(model, "lamp", reduction), expected, rtol=1e-5, err_msg=reduction)


def test_the_reduction_decides_what_goes_and_is_stored(model):
    """The first channel scores most in one layer, the second more in all together."""
    settings = dict(pruning_ratio=0.5, importance="taylor", data=DATA, loss="mae")
    dropped = {}
    for reduction in ("sum", "max"):
        plan = plan_channels(model, reduction=reduction, **settings)
        (group,) = (group for group in plan.groups if group.frozen is None)
        dropped[reduction] = np.flatnonzero(~plan.kept_mask[group.classes]).tolist()
        again = ChannelPlan.from_json(model, plan.to_json())
        assert (again.ranking.importance, again.ranking.reduction) == ("taylor", reduction)
    assert dropped == {"sum": [0], "max": [1]}
    content = json.loads(plan.to_json())
    content["ranking"]["reduction"] = "median"
    with pytest.raises(ValueError, match="'reduction' must be one of"):
        ChannelPlan.from_json(model, json.dumps(content))
    del content["ranking"]
    assert ChannelPlan.from_json(model, json.dumps(content)).ranking is None


@pytest.mark.parametrize(
    ("importance", "reduction", "message"),
    [
        ("l2", "median", "reduction must be one of"),
        ("l2", 3, "reduction must be one of"),
        ("random", "max", "importance is 'random': leave it out"),
        (lambda group: np.ones(group.size), "sum", "importance is a function: leave it out"),
    ],
    ids=["unknown", "number", "random", "function"],
)
def test_a_reduction_that_cannot_be(model, importance, reduction, message):
    with pytest.raises(ValueError, match=message):
        plan_channels(model, pruning_ratio=0.5, importance=importance, reduction=reduction)
    with pytest.raises(ValueError, match=message):
        ChannelPruning(ConstantSparsity(0.5, 0), pruning_ratio=0.5, importance=importance, reduction=reduction)
