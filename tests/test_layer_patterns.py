"""A name or pattern of layers means the same wherever one is passed."""

import functools
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.selection import matching
from edgeprune.sparsity.prunable import chosen_layers, names_of

SCHEDULE = ep.ConstantSparsity(0.5, 0)


@pytest.fixture
def keras(flavor):
    return flavors.keras_module(flavor)


def make(keras):
    """Nested models, two levels deep, and an attention layer, which holds layers too."""
    L = keras.layers
    block = keras.Sequential([keras.Input((4, 6)), L.Dense(6, name="conv_a"), L.Dense(6, name="conv")], name="block_1")
    first = keras.Input((4, 6))
    encoder = keras.Model(first, L.Dense(6, name="conv")(block(L.Dense(6, name="stem")(first))), name="encoder")
    inputs = keras.Input((4, 6), name="inputs")
    x = encoder(inputs)
    x = L.MultiHeadAttention(2, 3, name="attention")(x, x)
    return keras.Model(inputs, L.Dense(2, name="head")(L.Dense(5, name="conv_b")(x)))


@functools.cache
def net(flavor):
    return make(flavors.keras_module(flavor))


@functools.cache
def graph_of(flavor):
    return trace(net(flavor))


def fits(path, pattern):
    """The rule once more: whole parts of the path, anywhere in it."""
    wild = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(f"(?:.*/)?(?:{wild})(?:/.*)?", path, re.DOTALL) is not None


PATHS = [
    "encoder",
    "encoder/block_1",
    "encoder/block_1/conv_a",
    "encoder/conv",
    "attention",
    "attention/query",
    "conv_b",
]


@st.composite
def patterns(draw):
    path = draw(st.sampled_from(PATHS))
    parts = path.split("/")
    text = "/".join(parts[draw(st.integers(0, len(parts) - 1)) :])
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from("*?")) + text[place + draw(st.integers(0, 3)) :]
    return text


@given(pattern=patterns())
@example(pattern="conv*")
@example(pattern="conv_?")
@example(pattern="encoder")
@example(pattern="block_1")
@example(pattern="attention")
@example(pattern="block_1/conv")
@example(pattern="*/*/*")
@example(pattern="nowhere")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_layers_and_channels_are_chosen_alike(flavor, pattern):
    model, graph = net(flavor), graph_of(flavor)
    names = names_of(model)
    expected = {name for name in names.values() if fits(name, pattern)}
    if not expected:
        with pytest.raises(ValueError, match="matches no layer"):
            chosen_layers(model, pattern)
    else:
        assert {names[id(layer)] for layer in chosen_layers(model, pattern)} == expected

    def makers(group):
        return {graph.names[id(slot.layer)] for slot in group.slots if not slot.reads}

    groups = {group.name for group in graph.groups if makers(group) & expected or fits(group.name, pattern)}
    if not groups:
        with pytest.raises(ValueError, match="No channels of model"):
            matching(graph, pattern)
    else:
        assert {group.name for group in matching(graph, pattern)} == groups


@pytest.mark.parametrize("pattern", ["conv*", "block_1", "encoder/conv", "head"])
def test_the_four_arguments_agree(keras, pattern):
    """`layers=`, a dict of schedules, `ignore=` and `ratios=`, on a model that has nested ones."""
    dense = [path for path in ("encoder/stem", "encoder/block_1/conv_a", "encoder/block_1/conv", "encoder/conv")]
    expected = {path for path in [*dense, "conv_b", "head"] if fits(path, pattern)}

    def pruned(**arguments):
        return {
            row.layer for row in ep.sparsity_report(ep.prune_low_magnitude(make(keras), **arguments)).rows if row.target
        }

    assert pruned(pruning_schedule=SCHEDULE, layers=pattern) == expected
    assert pruned(pruning_schedule={pattern: SCHEDULE}) == expected
    if pattern != "head":  # the model's output, which keeps all its channels
        ignored = ep.plan_channels(make(keras), pruning_ratio=0.3, ignore=pattern, min_channels=1).frozen
        assert {name for name, reason in ignored.items() if reason == "ignored"} == expected
        plan = ep.plan_channels(make(keras), ratios={pattern: 0.5})
        assert {row.name for row in plan.planned if row.after < row.before} <= expected
        assert sum(row.after < row.before for row in plan.planned) > 0


def test_a_shared_layer_belongs_to_each_model_around_it(keras):
    L = keras.layers
    shared = L.Dense(4, name="shared")
    first = keras.Sequential([keras.Input((4,)), shared], name="first")
    second = keras.Sequential([keras.Input((4,)), shared, L.Dense(4, name="own")], name="second")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2, name="head")(second(first(inputs))))
    names = names_of(model)
    for pattern in ("first", "second"):
        assert "first/shared" in {names[id(layer)] for layer in chosen_layers(model, pattern)}
        assert "first/shared" in {group.name for group in matching(trace(model), pattern)}


def test_the_first_pattern_that_fits_counts(keras):
    low, high = ep.ConstantSparsity(0.25, 0), ep.ConstantSparsity(0.75, 0)
    model = ep.prune_low_magnitude(make(keras), {"block_1": high, "conv*": low})
    targets = {row.layer: row.target for row in ep.sparsity_report(model).rows if row.target}
    assert targets == {
        "encoder/block_1/conv_a": 0.75,
        "encoder/block_1/conv": 0.75,
        "encoder/conv": 0.25,
        "conv_b": 0.25,
    }
    plan = ep.plan_channels(make(keras), ratios={"block_1": 0.5, "*": 0.0})
    assert {row.name for row in plan.planned if row.after < row.before} == {
        "encoder/block_1/conv_a",
        "encoder/block_1/conv",
    }


def test_blocks_are_ignored_by_the_same_names(keras):
    L = keras.layers
    first = keras.Input((6,))
    inside = L.Add(name="join")([first, L.Dense(6, name="branch")(first)])
    inputs = keras.Input((6,))
    x = keras.Model(first, inside, name="body")(inputs)
    x = L.Add(name="last")([x, L.Dense(6, name="other")(x)])
    model = keras.Model(inputs, L.Dense(2)(x))
    data = np.ones((4, 6), np.float32)
    for pattern in ("body", "join", "branch", "body/*", "bran??"):
        plan = ep.plan_blocks(model, num_blocks=1, data=data, ignore=pattern)
        assert [block.name for block in plan.removed] == ["last"], pattern
    with pytest.raises(ValueError, match="Did you mean 'body/join'"):
        ep.plan_blocks(model, num_blocks=1, data=data, ignore="body/joint")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda model: ep.prune_low_magnitude(model, SCHEDULE, layers="conv_c"), "Did you mean .*conv_b"),
        (lambda model: ep.prune_low_magnitude(model, {"conv_c": SCHEDULE}), "Did you mean .*conv_b"),
        (lambda model: ep.plan_channels(model, pruning_ratio=0.5, ignore="conv_c"), "Did you mean .*conv_b"),
        (lambda model: ep.plan_channels(model, ratios={"conv_c": 0.5}), "Did you mean .*conv_b"),
    ],
    ids=["layers", "schedules", "ignore", "ratios"],
)
def test_a_name_that_is_nearly_right(keras, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(make(keras))
