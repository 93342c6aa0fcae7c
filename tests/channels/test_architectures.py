"""Small nets of many architectures: what can go is what should, and half of it goes with the same result."""

from __future__ import annotations

import numpy as np
import pytest
from nets.catalogue import ARCHITECTURES, built
from nets.cuts import random_mask, randomize

from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.rebuild.proof import prove
from edgeprune.channels.rebuild.slicing import rebuild
from edgeprune.measure.macs import count_macs

CASES = [(name, flavor) for name, net in ARCHITECTURES.items() for flavor in net.flavors]
# Every other net of tf_keras is slow: the layers of all are in `test_rebuild.py` and `test_every_layer.py` in both.
SLOW = [case for case in CASES if case[1] == flavors.TF_KERAS][::2]


def half(graph):
    """The mask that drops every second channel of each group that can be pruned."""
    mask = graph.full_mask()
    for group in graph.groups:
        if not group.frozen and not in_heads(group):
            mask[group.classes[1::2]] = False
    return mask


def in_heads(group):
    """Whether it is the channels inside the heads of attention, of which there are tests of their own."""
    return group.name.endswith(("/key", "/value"))


@pytest.mark.parametrize(
    ("name", "flavor"),
    [pytest.param(*case, id="-".join(case), marks=pytest.mark.slow if case in SLOW else ()) for case in CASES],
)
def test_half_of_it_goes(name, flavor):
    """Proven; and the MACs of the graph are those counted on the models themselves."""
    net = ARCHITECTURES[name]
    model = randomize(built(name, flavor))
    before = [np.asarray(weight).copy() for weight in model.weights]
    graph = trace(model)
    assert {group.name for group in graph.groups if not group.frozen and not in_heads(group)} == set(net.prunable)
    assert set(graph.frozen) == set(net.frozen)
    assert not any("unknown" in reason or "not fixed" in reason for reason in graph.frozen.values())
    assert len(graph.notes) == net.notes, graph.notes
    # The tracing and the proof do not depend on which channels go; each Keras is asked one of the two questions.
    mask = half(graph) if flavor == flavors.KERAS_3 else random_mask(graph, 0.4, seed=1)
    smaller = rebuild(graph, mask)
    assert graph.remaining_macs(mask) < 0.75 * graph.macs
    assert smaller.count_params() < 0.75 * model.count_params()
    verdict = prove(graph, mask, smaller)
    assert verdict.passed, str(verdict)
    assert verdict.calls > 2
    if flavor == flavors.KERAS_3:
        assert (graph.macs, graph.remaining_macs(mask)) == (count_macs(model).total, count_macs(smaller).total)
    for weight, values in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), values)
