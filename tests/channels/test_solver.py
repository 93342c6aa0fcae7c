"""Solving for the classes to keep, on graphs made by hand: what is kept is counted again, weight by weight."""

from __future__ import annotations

import math
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.channels.graph.coupling import ChannelGraph, Cost, Group, Slot
from edgeprune.channels.plan import solver, widths


class Conv2D:
    pass


class DepthwiseConv2D:
    pass


class Weight:
    def __init__(self, *shape):
        self.shape = shape


def chain(widths, *, area=4, frozen=(), repeat=1, inputs=3):
    """A chain of 3x3 convolutions; `repeat` positions in a row belong to each class, as in a grouped convolution."""
    sizes = [inputs, *widths]
    starts = np.concatenate([[0], np.cumsum([inputs, *(width // repeat for width in widths)])])
    vectors = [np.arange(inputs)]
    vectors += [np.repeat(np.arange(a, b), repeat) for a, b in zip(starts[1:], starts[2:], strict=False)]
    slots, costs, weights = [], [], []
    for number, (before, after) in enumerate(zip(vectors, vectors[1:], strict=False)):
        layer = Conv2D()
        kernel, bias = Weight(3, 3, sizes[number], sizes[number + 1]), Weight(sizes[number + 1])
        weights += [kernel, bias]
        slots += [
            Slot(kernel, layer, "kernel", 2, before, reads=True),
            Slot(kernel, layer, "kernel", 3, after, makes=True),
            Slot(bias, layer, "bias", 0, after),
        ]
        costs.append(Cost(layer, area * 9 * len(before) * len(after), (before, after)))
    names = ["input", *(f"conv_{number}" for number in range(len(widths)))]
    groups = []
    for name, vector in zip(names, vectors, strict=True):
        own = tuple(slot for slot in slots if slot.classes is vector)
        last = name in ("input", names[-1], *frozen)
        groups.append(Group(name, np.unique(vector), own, "it is an end" if last else None, (name,)))
    model = types.SimpleNamespace(name="chain", weights=weights)
    return ChannelGraph(model, int(starts[-1]), {}, tuple(groups), tuple(slots), tuple(costs), (), (), {})


def counted(graph, kept):
    """MACs and parameters, each weight sliced in NumPy."""
    axes = {}
    for slot in graph.slots:
        axes.setdefault(id(slot.weight), {})[slot.axis] = np.flatnonzero(kept[slot.classes])
    shapes = {id(w): np.zeros(w.shape)[np.ix_(*(axes[id(w)].get(a, np.arange(n)) for a, n in enumerate(w.shape)))].shape
              for w in graph.model.weights}  # fmt: skip
    params = sum(int(np.prod(shape)) for shape in shapes.values())
    macs = sum(
        cost.macs * np.prod([kept[axis].sum() for axis in cost.axes]) // np.prod([len(axis) for axis in cost.axes])
        for cost in graph.costs
    )
    return int(macs), params


def kept_of(graph, kept):
    return {group.name: int(kept[group.classes].sum()) for group in graph.groups}


def random_scores(graph, seed=0):
    return np.random.default_rng(seed).random(graph.class_count)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.integers(0, 99), st.sampled_from([1, 2, 3]))
def test_amounts_are_those_of_the_sliced_weights(widths, seed, repeat):
    graph = chain([width * repeat for width in widths], repeat=repeat)
    kept = np.random.default_rng(seed).random(graph.class_count) < 0.6
    assert (solver.macs_of(graph)(kept), solver.params_of(graph)(kept)) == counted(graph, kept)


@pytest.mark.parametrize("scope", solver.RANKING_SCOPES)
@pytest.mark.parametrize("kind", ["target_macs", "target_params"])
@pytest.mark.parametrize("asked", [0.9, 0.5, 0.25, 0.1])
def test_targets_are_met_within_one_percent(scope, kind, asked):
    graph = chain([64, 96, 128, 96, 10])
    kept, target = solver.solve(graph, random_scores(graph), kind, asked, scope=scope)
    before, after = counted(graph, graph.full_mask()), counted(graph, kept)
    got = after[kind == "target_params"] / before[kind == "target_params"]
    assert got == pytest.approx(asked, rel=0.01)
    assert target.achieved == pytest.approx(got)
    assert target.met


@pytest.mark.parametrize("scope", solver.RANKING_SCOPES)
def test_ratio_is_the_fraction_of_channels_removed(scope):
    graph = chain([64, 96, 32, 10])
    kept, target = solver.solve(graph, random_scores(graph), "pruning_ratio", 0.25, scope=scope)
    left = kept_of(graph, kept)
    assert left["input"] == 3 and left["conv_3"] == 10
    assert sum(left.values()) - 13 == 144
    assert target.achieved == 0.25
    if scope == "local":
        assert left == {"input": 3, "conv_0": 48, "conv_1": 72, "conv_2": 24, "conv_3": 10}


def test_the_lowest_scores_go_and_of_equals_the_first():
    graph = chain([4, 2])
    scores = np.zeros(graph.class_count)
    scores[3:7] = [5, 1, 1, 1]
    kept, _ = solver.solve(graph, scores, "pruning_ratio", 0.5)
    np.testing.assert_array_equal(kept[3:7], [True, True, False, False])


def test_global_takes_more_from_the_weaker_group():
    graph = chain([8, 8, 2])
    scores = np.ones(graph.class_count)
    scores[11:19] = 0.1
    kept, _ = solver.solve(graph, scores, "pruning_ratio", 0.25)
    assert kept_of(graph, kept) == {"input": 3, "conv_0": 8, "conv_1": 4, "conv_2": 2}


def test_isomorphic_ranks_only_groups_of_one_structure_together():
    """conv_0 and conv_1 lie between 3x3 kernels; conv_2's readers are given a window of 1x1."""
    graph = chain([8, 8, 8, 2])
    reader = next(slot for slot in graph.groups[3].slots if slot.reads)
    reader.weight.shape = (1, 1, 8, 2)
    scores = np.ones(graph.class_count)
    scores[3:11], scores[11:19], scores[19:27] = 0.1, 5, 0.01
    assert solver.structure(graph.groups[1]) == solver.structure(graph.groups[2]) != solver.structure(graph.groups[3])
    kept, _ = solver.solve(graph, scores, "pruning_ratio", 0.25, scope="isomorphic")
    assert kept_of(graph, kept) == {"input": 3, "conv_0": 4, "conv_1": 8, "conv_2": 6, "conv_3": 2}


@pytest.mark.parametrize("scope", solver.RANKING_SCOPES)
@pytest.mark.parametrize("round_to", [8, 16, lambda group: 16 if group.name == "conv_0" else 8])
def test_what_remains_is_a_multiple_or_all(scope, round_to):
    graph = chain([64, 100, 128, 4, 10])
    kept, target = solver.solve(graph, random_scores(graph), "target_macs", 0.5, scope=scope, round_to=round_to)
    left = kept_of(graph, kept)
    for name, size in [("conv_0", 64), ("conv_1", 100), ("conv_2", 128)]:
        multiple = 16 if round_to == 16 or (name == "conv_0" and callable(round_to)) else 8
        assert left[name] == size or left[name] % multiple == 0
        assert left[name] >= 8
    assert left["conv_3"] == 4
    assert target.achieved == pytest.approx(0.5, abs=0.03)


def test_coupled_channels_are_rounded_as_channels():
    graph = chain([96, 96, 12], repeat=3)
    kept, _ = solver.solve(graph, random_scores(graph), "pruning_ratio", 0.5, round_to=8, scope="local")
    assert kept_of(graph, kept) == {"input": 3, "conv_0": 16, "conv_1": 16, "conv_2": 4}  # classes of 3 channels


def test_tiles_leave_no_width_that_runs_slower_than_a_wider_one():
    graph = chain([24, 40, 144, 256, 10])
    wide = graph.groups[3]
    depthwise = Slot(Weight(3, 3, 144, 1), DepthwiseConv2D(), "kernel", 2, wide.classes)
    wide_depthwise = Group(wide.name, wide.classes, (*wide.slots, depthwise), None, wide.layers)
    assert [widths.float_tile(group) for group in graph.groups[1:5]] == [8, 16, 32, 32]
    assert widths.float_tile(wide_depthwise) == 32
    narrow = graph.groups[1]
    assert widths.float_tile(Group("x", narrow.classes, (*narrow.slots, depthwise), None, ())) == 16
    assert [widths.tile_int8(group) for group in graph.groups[1:5]] == [8, 8, 16, 16]
    kept, _ = solver.solve(graph, random_scores(graph), "target_macs", 0.4, round_to="tile")
    assert all(kept_of(graph, kept)[name] % 32 == 0 or kept_of(graph, kept)[name] == 144 for name in ["conv_2"])


def test_every_group_keeps_its_least():
    graph = chain([64, 64, 64, 10])
    scores = np.ones(graph.class_count)
    scores[3:67] = 0
    kept, _ = solver.solve(graph, scores, "pruning_ratio", 0.5, max_ratio=0.75)
    assert kept_of(graph, kept)["conv_0"] == 16
    kept, _ = solver.solve(graph, scores, "pruning_ratio", 0.5, min_channels=24)
    assert kept_of(graph, kept)["conv_0"] == 24
    assert sum(kept_of(graph, kept).values()) == 13 + 96


def test_single_groups_take_their_own_ratio():
    graph = chain([64, 64, 64, 10])
    kept, target = solver.solve(
        graph, random_scores(graph), "target_macs", 0.5, ratios={"conv_0": 0.0, "conv_1": 0.25}, scope="local"
    )
    assert kept_of(graph, kept)["conv_0"] == 64
    assert kept_of(graph, kept)["conv_1"] == 48
    assert target.achieved == pytest.approx(0.5, rel=0.01)


def test_ratios_by_hand_that_miss_the_target_are_told():
    graph = chain([64, 64, 10])
    with pytest.raises(ValueError, match="ratios= alone leaves 0.3474"):
        solver.solve(graph, random_scores(graph), "target_macs", 0.5, ratios={"conv_0": 0.75})


def test_coarse_rounding_comes_as_near_as_it_can_and_says_so():
    graph = chain([16, 16, 2])
    _, target = solver.solve(graph, random_scores(graph), "target_macs", 0.6, round_to=8)
    choices = []
    for first in (8, 16):
        for second in (8, 16):
            choices.append((27 * first + 9 * first * second + 18 * second) / (27 * 16 + 9 * 256 + 18 * 16))
    assert target.achieved == pytest.approx(min(choices, key=lambda got: abs(got - 0.6)))
    assert not target.met and "the closest" in str(target)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=6),
    st.sampled_from(["pruning_ratio", "target_macs", "target_params"]),
    st.floats(0.1, 0.9),
    st.sampled_from(solver.RANKING_SCOPES),
    st.sampled_from([1, 4, "tile", "tile-int8"]),
    st.integers(0, 9),
)
def test_limits_hold_for_any_chain(widths, kind, asked, scope, round_to, seed):
    graph = chain([*widths, 2])
    arguments = dict(scope=scope, round_to=round_to, min_channels=2)
    try:
        kept, target = solver.solve(graph, random_scores(graph, seed), kind, asked, **arguments)
    except ValueError as error:
        assert "cannot be reached" in str(error) or max(widths) < max(2, 0 if isinstance(round_to, str) else round_to)
        return
    again, _ = solver.solve(graph, random_scores(graph, seed), kind, asked, **arguments)
    np.testing.assert_array_equal(kept, again)
    left = kept_of(graph, kept)
    for group in graph.groups:
        if group.frozen:
            assert left[group.name] == group.size
        else:
            assert left[group.name] >= min(2, group.size)
            assert left[group.name] >= group.size * 0.1 - 1e-9
            assert left[group.name] == group.size or round_to != 4 or left[group.name] % 4 == 0
    if kind != "pruning_ratio":
        assert (
            target.achieved
            == counted(graph, kept)[kind == "target_params"]
            / counted(graph, graph.full_mask())[kind == "target_params"]
        )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(kind="pruning_ratio", asked=1.0), "pruning_ratio is the fraction"),
        (dict(kind="pruning_ratio", asked=-0.1), "pruning_ratio is the fraction"),
        (dict(kind="target_macs", asked=0.0), "target_macs is the fraction to keep"),
        (dict(kind="target_params", asked=1.5), "target_params is the fraction to keep"),
        (dict(kind="flops", asked=0.5), "must be one of"),
        (dict(scope="everywhere"), "scope must be"),
        (dict(max_ratio=1.0), "max_ratio must"),
        (dict(asked=0.95), "more than max_ratio"),
        (dict(min_channels=0), "min_channels must"),
        (dict(round_to=0), "round_to must be a whole number"),
        (dict(round_to=2.5), "round_to must be a whole number"),
        (dict(round_to=math.nan), "round_to must be a finite number"),
        (dict(round_to=math.inf), "round_to must be a finite number"),
        (dict(round_to=lambda group: math.inf), r"round_to \(for group 'conv_0'\) must be a finite number"),
        (dict(round_to=17), "round_to=17 is more than the 16 channels of the widest group"),
        (dict(min_channels=10**400), "is more than the 16 channels of the widest group"),
        (dict(min_channels=1.5), "min_channels must be a whole number"),
        (dict(max_ratio=math.nan), "max_ratio must be a finite number"),
        (dict(asked=math.nan), "pruning_ratio must be a finite number"),
        (dict(round_to="tiles"), "round_to must be a number, a function or one of"),
        (dict(scores=np.zeros(3)), "finite numbers"),
        (dict(scores=np.full(29, np.nan)), "finite numbers"),
        (dict(kind="target_macs", asked=0.01), "cannot be reached: 0.0"),
    ],
)
def test_errors(arguments, words):
    graph = chain([16, 8, 2])
    arguments = {"scores": random_scores(graph), "kind": "pruning_ratio", "asked": 0.5, **arguments}
    with pytest.raises(ValueError, match=words):
        solver.solve(graph, **arguments)


def test_nothing_to_remove_names_the_reasons():
    graph = chain([16, 2], frozen=("conv_0",))
    with pytest.raises(ValueError, match="input, conv_0, conv_1: it is an end"):
        solver.solve(graph, random_scores(graph), "pruning_ratio", 0.5)


def test_a_model_without_multiplications_has_no_amount():
    assert solver.Amount([])(np.ones(3, bool)) == 0
    assert solver.Amount([(5, [])])(np.zeros(3, bool)) == 5
