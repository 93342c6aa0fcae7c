"""Attention: whole heads go, channels inside the heads, and the channels of the streams."""

from __future__ import annotations

import pytest
from nets.cuts import halved, random_mask

from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.measure.macs import count_macs


@pytest.fixture
def keras(flavor):
    return flavors.keras_module(flavor)


INSIDE = ("attention/key", "attention/value")


def names(graph):
    return [group.name for group in graph.groups if not group.frozen]


def check(model, prunable, frozen=("head",)):
    """Half of every group goes and the result is that of the silenced original; returns graph and rebuilt model."""
    graph, rebuilt, verdict = halved(model)
    assert verdict.passed, str(verdict)
    assert names(graph) == list(prunable)
    assert list(graph.frozen) == list(frozen)
    return graph, rebuilt


def self_attention(keras, steps=5, width=8, call=None, **arguments):
    layers = keras.layers
    inputs = keras.Input((steps, 3))
    x = layers.Dense(width, name="stem")(inputs)
    attention = layers.MultiHeadAttention(4, 3, name="attention", **arguments)
    x = layers.Add()([x, attention(x, x, **(call or {}))])
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


@pytest.mark.parametrize(
    "arguments", [{}, {"value_dim": 5}, {"use_bias": False}, {"output_shape": 8}], ids=["plain", "value", "bias", "out"]
)
@pytest.mark.parametrize("call", [{}, {"use_causal_mask": True}], ids=["full", "causal"])
def test_heads_and_the_width_of_the_stream(keras, arguments, call):
    graph, rebuilt = check(self_attention(keras, call=call, **arguments), ["stem", "attention", *INSIDE])
    attention = rebuilt.get_layer("attention")
    config = attention.get_config()
    values = 3 if "value_dim" in arguments else 1
    assert (config["num_heads"], config["key_dim"], config["value_dim"]) == (2, 1, values)
    assert tuple(attention._query_dense.kernel.shape) == tuple(attention._key_dense.kernel.shape) == (4, 2, 1)
    assert tuple(attention._output_dense.kernel.shape) == (2, values, 4)
    assert graph.groups[0].layers == ("stem", "attention/attention_output")
    assert graph.macs == count_macs(graph.model).total
    assert graph.remaining_macs(random_mask(graph)) == count_macs(rebuilt).total


def test_heads_go_together_in_all_kernels(keras):
    model = self_attention(keras)
    graph = trace(model)
    (group,) = (group for group in graph.groups if group.name == "attention")
    touched = sorted((tuple(slot.weight.shape), slot.axis, slot.reads) for slot in group.slots)
    assert touched == sorted([((8, 4, 3), 1, False)] * 3 + [((4, 3), 0, False)] * 3 + [((4, 3, 8), 0, True)])


def test_without_a_residual_the_widths_are_free(keras):
    layers = keras.layers
    inputs = keras.Input((5, 3))
    x = layers.Dense(8, name="stem")(inputs)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    _, rebuilt = check(model, ["stem", "attention", *INSIDE, "attention/attention_output"])
    assert rebuilt.get_layer("attention").get_config()["num_heads"] == 1


@pytest.mark.parametrize("with_key", [False, True])
def test_cross_attention(keras, with_key):
    layers = keras.layers
    inputs, memory = keras.Input((5, 3)), keras.Input((7, 4))
    query, value = layers.Dense(8, name="query")(inputs), layers.Dense(6, name="value")(memory)
    more = {"key": layers.Dense(10, name="key")(memory)} if with_key else {}
    x = layers.MultiHeadAttention(2, 4, name="attention")(query, value, **more)
    model = keras.Model([inputs, memory], layers.Dense(2, name="head")(x))
    sources = ["query", "value", "key"] if with_key else ["query", "value"]
    graph, rebuilt, verdict = halved(model)
    assert verdict.passed, str(verdict)
    assert set(names(graph)) == {*sources, "attention", *INSIDE, "attention/attention_output"}
    assert graph.macs == count_macs(model).total
    assert tuple(rebuilt.get_layer("attention")._key_dense.kernel.shape) == (5 if with_key else 3, 1, 2)


def test_scores_are_given_for_the_heads_that_stay(keras):
    layers = keras.layers
    inputs = keras.Input((5, 3))
    x = layers.Dense(8, name="stem")(inputs)
    x, scores = layers.MultiHeadAttention(4, 4, name="attention")(x, x, return_attention_scores=True)
    scores = layers.Dense(3, name="mix")(layers.Permute((2, 3, 1))(scores))
    model = keras.Model(inputs, [layers.Dense(2, name="head")(x), scores])
    graph, _, verdict = halved(model)
    assert verdict.passed, str(verdict)
    assert names(graph) == ["stem", "attention", *INSIDE, "attention/attention_output"]
    assert set(graph.frozen) == {"head", "mix"}


def test_scores_that_are_an_output_keep_the_heads(keras):
    layers = keras.layers
    inputs = keras.Input((5, 3))
    x = layers.Dense(8, name="stem")(inputs)
    x, scores = layers.MultiHeadAttention(4, 4, name="attention")(x, x, return_attention_scores=True)
    graph = trace(keras.Model(inputs, [layers.Dense(2, name="head")(x), scores]))
    assert "attention" in graph.frozen
    assert names(graph) == ["stem", *INSIDE, "attention/attention_output"]


def test_a_mask_from_outside(keras):
    layers = keras.layers
    inputs, mask = keras.Input((5, 3)), keras.Input((5, 5), dtype="bool")
    x = layers.Dense(8, name="stem")(inputs)
    y = layers.MultiHeadAttention(2, 4, name="attention")(x, x, attention_mask=mask)
    model = keras.Model([inputs, mask], layers.Dense(2, name="head")(layers.Add()([x, y])))
    check(model, ["stem", "attention", *INSIDE])


def test_attention_over_two_axes(keras):
    layers = keras.layers
    inputs = keras.Input((3, 4, 2))
    x = layers.Dense(8, name="stem")(inputs)
    x = layers.MultiHeadAttention(4, 2, attention_axes=(1, 2), name="both")(x, x)
    x = layers.MultiHeadAttention(4, 2, attention_axes=(2,), name="rows")(x, x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    graph, _, verdict = halved(model)
    assert verdict.passed, str(verdict)
    parts = ("", "/key", "/value", "/attention_output")
    assert set(names(graph)) == {"stem", *(f"{name}{part}" for name in ("both", "rows") for part in parts)}
    assert graph.macs == count_macs(model).total


def test_several_axes_out_stay(keras):
    layers = keras.layers
    inputs = keras.Input((5, 3))
    x = layers.Dense(8, name="stem")(inputs)
    x = layers.MultiHeadAttention(2, 4, output_shape=(2, 3), name="attention")(x, x)
    graph = trace(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    assert "several axes" in graph.frozen["stem"]


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("scores", [False, True])
def test_grouped_query_attention(gate, scores):
    keras = flavors.keras_module(flavors.KERAS_3)
    layers = keras.layers
    inputs = keras.Input((5, 3))
    x = layers.Dense(8, name="stem")(inputs)
    attention = layers.GroupQueryAttention(3, 6, 2, use_gate=gate, name="attention")
    y = attention(x, x, use_causal_mask=True, return_attention_scores=scores)
    y = y[0] if scores else y
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Add()([x, y])))
    graph, rebuilt = check(model, ["stem", "attention", "attention/key"])
    small = rebuilt.get_layer("attention")
    assert (small.num_query_heads, small.num_key_value_heads, small.head_dim) == (3, 1, 1)
    (group,) = (group for group in graph.groups if group.name == "attention")
    assert group.size == 2
    assert graph.macs == count_macs(model).total


def test_a_gate_on_the_heads():
    keras = flavors.keras_module(flavors.KERAS_3)
    graph, rebuilt = check(self_attention(keras, use_gate=True), ["stem", "attention", *INSIDE])
    assert tuple(rebuilt.get_layer("attention")._gate_dense.kernel.shape) == (4, 2, 1)
    assert graph.macs == count_macs(graph.model).total


def test_grouped_query_attention_on_the_input_keeps_its_width():
    keras = flavors.keras_module(flavors.KERAS_3)
    layers = keras.layers
    inputs = keras.Input((5, 6))
    x = layers.GroupQueryAttention(3, 4, 2, name="attention")(inputs, inputs)
    graph = trace(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    assert names(graph) == ["attention", "attention/key"]
    assert "attention/attention_output" in graph.frozen


def attention_net(keras, make, value=None):
    """Attention over a memory; with `value` its values are apart from its keys, and so wide."""
    layers = keras.layers
    inputs, memory = keras.Input((5, 3)), keras.Input((7, 3))
    tensors = [layers.Dense(8, name="query")(inputs), layers.Dense(value or 8, name="value")(memory)]
    if value:
        tensors.append(layers.Dense(8, name="key")(memory))
    return keras.Model([inputs, memory], layers.Dense(2, name="head")(make(layers)(tensors)))


KINDS = {
    "dot": lambda layers: layers.Attention(),
    "scaled": lambda layers: layers.Attention(use_scale=True),
    "concat": lambda layers: layers.Attention(score_mode="concat"),
    "additive": lambda layers: layers.AdditiveAttention(),
    "additive_plain": lambda layers: layers.AdditiveAttention(use_scale=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_attention_without_heads(keras, kind):
    graph, rebuilt = check(attention_net(keras, KINDS[kind]), ["query"])
    assert graph.groups[0].layers == ("query", "value")
    assert rebuilt.get_layer("query").units == rebuilt.get_layer("value").units == 4


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"additive"}))
def test_values_apart_from_the_keys_have_a_width_of_their_own(keras, kind):
    _, rebuilt = check(attention_net(keras, KINDS[kind], value=6), ["query", "value"])
    assert rebuilt.get_layer("query").units == 4
    assert rebuilt.get_layer("value").units == 3


def test_a_scale_for_each_channel_makes_all_widths_equal(keras):
    graph, _ = check(attention_net(keras, KINDS["additive"], value=8), ["query"])
    assert set(graph.groups[0].layers) == {"query", "value", "key"}


@pytest.mark.parametrize("kind", ["dot", "additive"])
def test_padding_is_not_attended_to(keras, kind):
    layers = keras.layers
    words = keras.Input((8,), dtype="int32")
    x = layers.Embedding(2, 8, mask_zero=True, name="words")(words)
    x = layers.Dense(8, name="wide")(x)
    x = KINDS[kind](layers)([x, x])
    check(keras.Model(words, layers.Dense(2, name="head")(layers.GlobalMaxPooling1D()(x))), ["words", "wide"])


def test_a_transformer_block_with_padding(keras):
    layers = keras.layers
    words = keras.Input((8,), dtype="int32")
    x = layers.Embedding(2, 8, mask_zero=True, name="words")(words)
    y = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LayerNormalization(name="norm")(layers.Add()([x, y]))
    y = layers.Dense(8, name="out")(layers.Dense(16, activation="relu", name="in")(x))
    x = layers.LayerNormalization(name="norm2")(layers.Add()([x, y]))
    model = keras.Model(words, layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(x)))
    graph, _ = check(model, ["words", "attention", *INSIDE, "in"])
    assert len(graph.notes) == 2


def test_a_query_may_be_cut_where_the_output_is_not(keras):
    """Without an output shape, attention gives as many channels as the query has."""
    i = keras.Input((5, 6))
    query = keras.layers.Dense(8, name="query")(i)
    model = keras.Model(i, keras.layers.MultiHeadAttention(2, 3, name="attention")(query, i))
    _, smaller, found = halved(model)
    assert found.passed and smaller.get_layer("query").units == 4 and smaller.output_shape[-1] == 8
