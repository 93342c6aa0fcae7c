"""Candidates against the models that plans build: the same outputs, whatever is removed."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets.catalogue import NETS, built
from nets.cuts import random_mask, randomize

from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.search.trial.candidates import Candidates

# Convolutions, splits, statistics over channels, attention, nested models, several inputs.
SOME_NETS = (
    *("plain_convolutions", "grouped", "one_dimension", "normalisations", "shared_layer", "merges"),
    *("embedding", "attention_pooling", "nested_of_nested", "two_inputs_three_outputs", "composite_layers"),
)


def samples_for(graph, count=5):
    rng = np.random.default_rng(1)
    arrays = []
    for tensor in flavors.graph_nodes(graph.walked)[0]:
        shape = (count, *(16 if size is None else size for size in tensor.shape[1:]))
        floats = "float" in str(tensor.dtype)
        arrays.append(rng.normal(size=shape).astype(np.float32) if floats else rng.integers(0, 2, shape))
    return arrays if len(arrays) > 1 else arrays[0]


def outputs_of(model, x):
    made = model(x, training=False)
    return [np.asarray(one) for one in flavors.flatten(made, model)]


def assert_close(candidates, expected):
    for own, other in zip(candidates.values(), expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4 * max(np.abs(other).max(), 1.0))


@pytest.mark.parametrize("name", SOME_NETS)
def test_a_candidate_computes_what_the_smaller_model_does(name, flavor):
    if flavor not in NETS[name].flavors:
        pytest.skip("written for the other Keras")
    graph = trace(randomize(built(name, flavor)))
    x = samples_for(graph)
    candidates = Candidates(graph, x, batch_size=2)  # the last batch is filled up
    for seed in range(2):
        mask = random_mask(graph, 0.5, seed)
        assert_close(candidates.outputs(mask), outputs_of(ChannelPlan(graph, mask).apply(verify=False), x))
    assert_close(candidates.outputs(graph.full_mask()), outputs_of(graph.model, x))


@cache
def dense_connections(flavor):
    graph = trace(randomize(built("dense_connections", flavor)))
    x = samples_for(graph, 3)
    return graph, x, Candidates(graph, x)


@settings(max_examples=5, deadline=None)
@given(ratio=st.floats(0.05, 0.95), seed=st.integers(0, 1000), scaled=st.booleans())
@pytest.mark.parametrize("flavor", [flavors.KERAS_3, flavors.TF_KERAS])
def test_one_candidate_after_the_other_is_as_if_it_were_the_first(flavor, ratio, seed, scaled):
    graph, x, candidates = dense_connections(flavor)
    mask = random_mask(graph, ratio, seed)
    kernel = next(weight for weight in graph.model.weights if len(weight.shape) > 1)
    values = {id(kernel): 2 * flavors.array_of(kernel)} if scaled else {}
    found = candidates.outputs(mask, values)
    smaller = ChannelPlan(graph, mask).apply(verify=False)
    if scaled:
        twin = next(weight for weight in smaller.weights if len(weight.shape) > 1)
        twin.assign(2 * np.asarray(twin))
    assert_close(found, outputs_of(smaller, x))
