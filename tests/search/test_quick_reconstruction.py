"""Weights solved from sums: as the whole reconstruction where one layer reads the group, exact where it can be."""

import numpy as np
import pytest
from nets.cuts import randomize

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.search.trial import quick_reconstruction
from edgeprune.search.trial.candidates import Candidates
from edgeprune.search.trial.quick_reconstruction import QuickReconstruction


@pytest.fixture
def x(rng):
    return rng.normal(size=(48, 6, 6, 3)).astype(np.float32)


def last_reader_net(flavor, kind):
    """What reads the group `made` is the last layer."""
    k = flavors.keras_module(flavor).layers
    last = {
        "Dense": lambda y: k.Dense(3)(k.Flatten()(y)),
        "Conv2D": lambda y: k.Conv2D(4, 3, strides=2, use_bias=False)(y),
        "grouped": lambda y: k.Conv2D(4, 3, groups=2, padding="same")(y),
        "Conv2DTranspose": lambda y: k.Conv2DTranspose(3, 3)(y),
        "SeparableConv2D": lambda y: k.SeparableConv2D(3, 3)(y),
    }[kind]
    inputs = k.Input((6, 6, 3))
    outputs = last(k.ReLU()(k.Conv2D(8, 3, name="made")(inputs)))
    return randomize(flavors.keras_module(flavor).Model(inputs, outputs))


def without_half(graph, name="made"):
    kept = graph.full_mask()
    (group,) = [group for group in graph.groups if group.name == name]
    kept[group.classes[::2] if group.size == 8 else group.classes[:2]] = False
    return kept


@pytest.mark.parametrize("kind", ["Dense", "Conv2D", "grouped", "Conv2DTranspose", "SeparableConv2D"])
@pytest.mark.above_flavor
def test_the_last_layer_is_solved_as_by_the_whole_reconstruction(flavor, kind, x):
    graph = trace(last_reader_net(flavor, kind))
    kept = without_half(graph)
    found = ChannelPlan(graph, kept).reconstruct(x, batch_size=16)
    values = QuickReconstruction(graph, x, batch_size=16).values(kept)
    (outputs,) = Candidates(graph, x).outputs(kept, values).values()
    expected = np.asarray(found.model(x))
    cut = np.asarray(ChannelPlan(graph, kept).apply(verify=False)(x))
    np.testing.assert_allclose(outputs, expected, atol=1e-3 * np.abs(expected).max())
    assert np.abs(cut - expected).max() > 0.05 * np.abs(expected).max()


def normalized_net(flavor, mixed):
    """A group half of which are mixtures of the other half, read by a layer without bias before a normalization."""
    k = flavors.keras_module(flavor).layers
    inputs = k.Input((6, 6, 3))
    y = k.Conv2D(8, 3, name="made")(inputs)
    y = k.ReLU()(k.BatchNormalization()(k.Conv2D(6, 3, use_bias=False)(y)))
    model = randomize(flavors.keras_module(flavor).Model(inputs, k.Dense(2)(k.Flatten()(y))))
    layer = model.get_layer("made")
    kernel, bias = (np.array(weight) for weight in layer.weights)
    kernel[..., ::2] = kernel[..., 1::2] @ mixed
    bias[::2] = bias[1::2] @ mixed + 1.0  # a constant that only a shift makes up for
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
    return model


@pytest.mark.above_flavor
def test_what_other_channels_explain_is_no_loss(flavor, x, rng):
    graph = trace(normalized_net(flavor, rng.normal(size=(4, 4)).astype(np.float32)))
    kept, candidates = without_half(graph), Candidates(graph, x)
    (whole,) = candidates.outputs(graph.full_mask()).values()
    (cut,) = candidates.outputs(kept).values()
    (solved,) = candidates.outputs(kept, QuickReconstruction(graph, x).values(kept)).values()
    assert np.abs(cut - whole).max() > 0.1 * np.abs(whole).max()
    np.testing.assert_allclose(solved, whole, atol=2e-3 * np.abs(whole).max())


def test_sums_that_do_not_fit_into_memory_are_added_up_in_several_passes(x, monkeypatch):
    graph = trace(last_reader_net("keras", "Dense"))
    kept = without_half(graph)
    values = QuickReconstruction(graph, x).values(kept)
    monkeypatch.setattr(quick_reconstruction, "SUMS_MEMORY", 1)
    again = QuickReconstruction(graph, x).values(kept)
    assert values.keys() == again.keys()
    assert all(np.array_equal(values[key], again[key]) for key in values)


def test_sensitivity_is_lower_after_reconstruction(x, rng):
    model = normalized_net("keras", rng.normal(size=(4, 4)).astype(np.float32))
    cut = ep.sensitivity(model, x, levels=(0.5,))
    solved = ep.sensitivity(model, x, levels=(0.5,), reconstruct=x)
    assert solved.reconstructed and "solved again" in str(solved)
    assert all(new.scores < old.scores for old, new in zip(cut, solved, strict=True))


def test_what_cannot_be_reconstructed_is_refused(x):
    model = last_reader_net("keras", "Dense")
    with pytest.raises(ValueError, match="no batches"):
        QuickReconstruction(trace(model), [])
