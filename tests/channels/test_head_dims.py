"""Channels inside attention heads: each head loses as many, its own; the scale of the scores stays."""

from __future__ import annotations

import numpy as np
import pytest
from nets.cuts import randomize

from edgeprune import flavor as flavors
from edgeprune import strip_pruning
from edgeprune.channels.callback import ChannelPruning
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.channels.plan.planning import plan_channels
from edgeprune.dead_channels.removal import find_dead_channels
from edgeprune.sparsity.schedules import ConstantSparsity

HEADS, DEPTH, VALUES = 3, 6, 4


@pytest.fixture
def keras(flavor):
    return flavors.keras_module(flavor)


def attention_net(keras, shared=False):
    inputs = keras.Input((5, 7))
    attention = keras.layers.MultiHeadAttention(HEADS, DEPTH, VALUES, output_shape=7, name="attention")
    x = attention(inputs, inputs)
    x = attention(x, inputs) if shared else x
    return randomize(keras.Model(inputs, x))


def zeroed(model, kept):
    """The output of a model on fixed inputs where the query's and the output's weights read only some channels.

    Args:
        kept: for `"key"` and `"value"` the numbers (heads, kept) of the kept channels in each head.
    """
    layer = model.get_layer("attention")
    weights = [weight for dense in (layer._query_dense, layer._output_dense) for weight in dense.weights]
    before = [np.array(weight) for weight in weights]
    for head in range(HEADS):
        for weight in layer._query_dense.weights:
            values = np.array(weight)
            values[..., head, np.setdiff1d(np.arange(DEPTH), kept["key"][head])] = 0
            weight.assign(values)
        values = np.array(layer._output_dense.kernel)
        values[head, np.setdiff1d(np.arange(VALUES), kept["value"][head])] = 0
        layer._output_dense.kernel.assign(values)
    given = np.asarray(model(samples()))
    for weight, values in zip(weights, before, strict=True):
        weight.assign(values)
    return given


def samples():
    return np.random.default_rng(1).normal(size=(4, 5, 7)).astype(np.float32)


def kept_in_heads(plan):
    weights = {id(weight): kept for weight, kept in zip(plan.model.weights, plan.kept, strict=True)}
    layer = plan.model.get_layer("attention")
    return {"key": weights[id(layer._key_dense.kernel)][2], "value": weights[id(layer._value_dense.kernel)][2]}


@pytest.mark.parametrize("shared", [False, True])
def test_the_query_silenced_by_hand_computes_the_same(keras, shared):
    model = attention_net(keras, shared)
    plan = plan_channels(model, pruning_ratio=0.5, scope="local", attention="dims")
    smaller = plan.apply()
    kept = kept_in_heads(plan)
    assert kept["key"].shape == (HEADS, DEPTH // 2)
    assert kept["value"].shape == (HEADS, VALUES // 2)
    assert len({tuple(row) for row in kept["key"].tolist()}) > 1  # each head chooses its own
    np.testing.assert_allclose(np.asarray(smaller(samples())), zeroed(model, kept), rtol=1e-4, atol=1e-5)


def test_each_head_keeps_the_channels_with_the_largest_weights(keras):
    model = attention_net(keras)
    layer = model.get_layer("attention")
    norms = 0.0
    for weight in (layer._query_dense.kernel, layer._key_dense.kernel):
        norms = norms + np.square(np.array(weight)).sum(axis=0)
    plan = plan_channels(model, pruning_ratio=0.5, scope="local", attention="dims")
    expected = np.sort(np.argsort(-norms, axis=1)[:, : DEPTH // 2], axis=1)
    np.testing.assert_array_equal(kept_in_heads(plan)["key"], expected)


def test_what_attention_layers_lose_is_chosen(keras):
    model = attention_net(keras)

    def losing(**settings):
        plan = plan_channels(model, target_macs=0.6, **settings)
        return {row.name for row in plan.planned if row.after < row.before}, plan

    assert losing()[0] == losing(attention="heads")[0] == {"attention"}
    assert "attention='heads'" in losing()[1].frozen["attention/key"]
    lost, plan = losing(attention="dims")
    assert lost == {"attention/key", "attention/value"}
    assert "attention='dims'" in plan.frozen["attention"]
    both = plan_channels(model, pruning_ratio=0.5, scope="local", attention="both")
    config = both.apply().get_layer("attention").get_config()
    assert (config["num_heads"], config["key_dim"], config["value_dim"]) == (2, DEPTH // 2, VALUES // 2)
    with pytest.raises(ValueError, match="attention must be one of"):
        plan_channels(model, pruning_ratio=0.5, attention="head")


def test_ratios_and_widths_count_the_channels_of_one_head(keras):
    model = attention_net(keras)
    plan = plan_channels(model, ratios={"attention/key": 0.4}, round_to=2, attention="both")
    row = next(row for row in plan.planned if row.name == "attention/key")
    assert (row.before, row.after) == (DEPTH, 4)
    assert plan.channels.before == HEADS + DEPTH + VALUES


def test_a_plan_is_stored_and_read(keras):
    plan = plan_channels(attention_net(keras), pruning_ratio=0.5, attention="both")
    again = ChannelPlan.from_json(plan.model, plan.to_json())
    np.testing.assert_array_equal(again.kept_mask, plan.kept_mask)
    assert again.frozen == plan.frozen
    assert again.verify().passed


def test_by_hand_every_head_must_lose_as_many(keras):
    plan = plan_channels(attention_net(keras), ratios={"attention/*": 0.0}, attention="dims")
    with pytest.raises(ValueError, match="3 heads of 'attention/key' must lose as many"):
        plan.drop("attention/key", [0, 1])
    plan = plan.drop("attention/key", [0, DEPTH + 3, 2 * DEPTH + 5])
    assert plan.verify().passed
    assert plan.apply().get_layer("attention").get_config()["key_dim"] == DEPTH - 1
    with pytest.raises(ValueError, match="no channels left"):
        plan.drop("attention/key", range(HEADS * DEPTH))


def test_channels_inside_heads_go_while_training(keras):
    model = attention_net(keras)
    model.compile("sgd", "mse")
    x, y = samples(), np.zeros((4, 5, 7), np.float32)
    pruning = ChannelPruning(ConstantSparsity(0.5, 0, frequency=1), pruning_ratio=0.5, scope="local", attention="both")
    model.fit(x, y, epochs=2, verbose=0, callbacks=[pruning])
    smaller = strip_pruning(model)
    config = smaller.get_layer("attention").get_config()
    assert (config["num_heads"], config["key_dim"], config["value_dim"]) == (2, DEPTH // 2, VALUES // 2)
    np.testing.assert_allclose(np.asarray(smaller(x)), np.asarray(model(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("importance", ["l1", "lamp", "fpgm", "taylor", "fisher", "random"])
def test_every_importance_ranks_channels_inside_heads(importance):
    model = attention_net(flavors.keras_module(flavors.KERAS_3))
    data = (samples(), np.zeros((4, 5, 7), np.float32))
    plan = plan_channels(
        model, pruning_ratio=0.5, scope="local", attention="dims", importance=importance, data=data, loss="mse"
    )
    assert kept_in_heads(plan)["key"].shape == (HEADS, DEPTH // 2)
    assert plan.verify().passed


def test_dead_channels_inside_heads_stay():
    model = attention_net(flavors.keras_module(flavors.KERAS_3))
    kernel = model.get_layer("attention")._query_dense.kernel
    kernel.assign(np.array(kernel) * 0)
    assert find_dead_channels(model).count == 0
