"""What keeps its channels is named with its reason: every layer with weights is cut or frozen, never silent."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.text_table import text_of


@pytest.fixture
def keras(flavor):
    return flavors.keras_module(flavor)


def own_layer(keras):
    """No rule knows it, and it holds weights."""

    class Own(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")
            self.built = True

        def call(self, x):
            self.add_loss(tf.reduce_sum(self.kernel))  # `tf_keras` is not followed
            return tf.matmul(x, tf.convert_to_tensor(self.kernel))  # of TensorFlow, so `keras` 3 is not

        def compute_output_shape(self, shape):
            return shape

    return Own


def steps(keras):
    """What a random net is made of; each takes and gives (places, channels)."""
    L = keras.layers
    return {
        "dense": lambda n: L.Dense(n),
        "one unit": lambda n: L.Dense(1),
        "conv": lambda n: L.Conv1D(n, 1),
        "depthwise": lambda n: L.DepthwiseConv1D(1),
        "separable": lambda n: L.SeparableConv1D(n, 1),
        "norm": lambda n: L.BatchNormalization(),
        "layer norm": lambda n: L.LayerNormalization(),
        "prelu": lambda n: L.PReLU(shared_axes=[1]),
        "gru": lambda n: L.GRU(n, return_sequences=True),
        "attention": lambda n: L.Attention(use_scale=True),
        "own": lambda n: own_layer(keras)(),
        "each": lambda n: L.TimeDistributed(L.Dense(n)),
    }


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_layer_with_weights_is_in_a_free_group_or_frozen(keras, data):
    """Random chains and residual nets; what a layer's weights can lose says which of the two it is."""
    make = steps(keras)
    x = i = keras.Input((4, 3))
    for _ in range(data.draw(st.integers(1, 5))):
        kind = data.draw(st.sampled_from(sorted(make)))
        layer = make[kind](data.draw(st.sampled_from([2, 6])))
        y = layer([x, x]) if kind == "attention" else layer(x)
        joined = data.draw(st.booleans()) and tuple(x.shape) == tuple(y.shape)
        x = keras.layers.Add()([x, y]) if joined else y
    model = keras.Model(i, keras.layers.Dense(2)(x) if data.draw(st.booleans()) else x)
    graph = trace(model)
    names, owned = flavors.layer_names(model), {}
    for slot in graph.slots:
        if not slot.reads:
            owned.setdefault(names[id(slot.layer)], set()).update(slot.classes.tolist())
    makers = {name for group in graph.groups if not group.frozen for name in group.layers}
    for layer in model.layers:
        inside = [names[id(part)] for part in flavors.layers_of(layer)]
        free = any(
            set(graph.frozen_reason) < owned[name] | set(graph.frozen_reason) for name in inside if name in owned
        )
        frozen = [name for name in inside if name in graph.frozen]
        if not any(len(weight.shape) for weight in layer.weights):
            continue
        assert free or frozen, (layer.name, graph.frozen)
        assert layer.name not in makers or layer.name not in graph.frozen, (layer.name, graph.frozen)
    assert all(reason for reason in graph.frozen.values())
    if all(group.frozen for group in graph.groups):
        with pytest.raises(ValueError, match="No channels of model") as error:
            ep.plan_channels(model, pruning_ratio=0.5)
        assert all(reason in str(error.value) for reason in list(dict.fromkeys(graph.frozen.values()))[:8])


def test_layers_on_the_models_input(keras):
    """They make no channels of their own, or none that anybody follows, and are reported all the same."""
    L = keras.layers
    i = keras.Input((6, 6, 3))
    x = L.BatchNormalization(name="norm")(L.DepthwiseConv2D(3, name="depthwise")(i))
    x = L.Conv2D(8, 1, name="conv")(own_layer(keras)(name="own")(x))
    frozen = trace(keras.Model(i, L.Dense(2, name="head")(L.Flatten()(x)))).frozen
    assert list(frozen) == ["depthwise", "norm", "own", "head"]
    assert "channels pass through it" in frozen["depthwise"] and "Own is unknown" in frozen["own"]
    assert frozen["head"] == "output of the model (head)"


def test_neighbours_of_a_layer_that_cannot_be_followed(keras):
    """The first reason is not lost where groups are joined, and stands beside each of their layers."""
    L = keras.layers
    i = keras.Input((4,))
    a, b = L.Dense(8, name="a")(i), L.Dense(8, name="b")(i)
    x = L.Add()([a, L.BatchNormalization(name="norm")(b)])
    x = L.Dense(6, name="after")(own_layer(keras)(name="own")(x))
    frozen = trace(keras.Model(i, L.Dense(2, name="head")(x))).frozen
    assert set(frozen) == {"a", "b", "norm", "own", "head"}
    assert len({frozen[name] for name in ("a", "b", "norm", "own")}) == 1


def test_shared_with_something_frozen(keras):
    L = keras.layers
    i, j = keras.Input((4,)), keras.Input((8,))
    shared = L.Dense(6, name="shared")
    x = L.Concatenate()([shared(L.Dense(8, name="a")(i)), shared(j)])
    frozen = trace(keras.Model([i, j], L.Dense(2, name="head")(x))).frozen
    assert "also called on" in frozen["a"] and "shared" not in frozen


def test_what_the_user_ignores_and_what_is_too_narrow(keras):
    L = keras.layers
    layers = [L.Dense(size, name=f"d{size}") for size in (20, 12, 6, 1)]
    model = keras.Sequential([keras.Input((4,)), *layers, L.Dense(2, name="head")])
    plan = ep.plan_channels(model, pruning_ratio=0.5, ignore="d20", round_to=8)
    assert list(plan.frozen) == ["d20", "d1", "head", "d6"]
    assert plan.frozen["d20"] == "ignored" and "single channel" in plan.frozen["d1"]
    assert plan.frozen["d6"] == "round_to=8 leaves no smaller width for its 6 channels"
    plan = ep.plan_channels(model, pruning_ratio=0.1, min_channels=12)
    assert plan.frozen["d12"] == "min_channels=12 leaves no smaller width for its 12 channels"
    assert "d20" not in plan.frozen
    assert "frozen: d12" in str(plan)
    again = ep.channels.ChannelPlan.from_json(model, plan.to_json())
    assert again.frozen == plan.frozen


def test_scores_that_say_nothing(keras):
    """An importance of batch norms knows nothing of layers without one."""
    L = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(8, name="a"),
            L.BatchNormalization(name="norm"),
            L.Dense(8, name="b"),
            L.Dense(2, name="head"),
        ]
    )
    plan = ep.plan_channels(model, pruning_ratio=0.5, importance="bn_scale")
    assert plan.frozen["b"] == "bn_scale has no scores for these channels" and "a" not in plan.frozen


def test_the_error_folds_equal_reasons(keras):
    L = keras.layers
    own = own_layer(keras)
    i = keras.Input((8,))
    x = L.Add()([L.Dense(8, name=f"d{number}")(i) for number in range(30)])
    model = keras.Model(i, own(name="own")(x), name="net")
    with pytest.raises(ValueError, match=r"d3 and 27 more, see inspect: own: the layer Own is unknown") as error:
        ep.plan_channels(model, pruning_ratio=0.5)
    assert len(str(error.value)) < 400
    nothing = keras.Model(i, L.Rescaling(2.0)(i))
    with pytest.raises(ValueError, match="None of its layers makes channels"):
        ep.plan_channels(nothing, pruning_ratio=0.5)
    np.testing.assert_equal(len(trace(model).frozen), 31)


def test_every_frozen_name_can_be_seen(keras, capsys):
    """The plan folds the names of one reason and says where they all are; inspect lists layers of no group too."""
    L = keras.layers
    i = keras.Input((8,))
    x = L.Dense(8, name="free")(i)
    towers = [L.Dense(2, name=f"tower{number}")(x) for number in range(6)]
    model = keras.Model(i, own_layer(keras)(name="own")(L.Concatenate(name="joined")(towers)))
    plan = ep.plan_channels(model, pruning_ratio=0.5)
    (folded,) = [line for line in str(plan).splitlines() if line.startswith("frozen: tower0")]
    assert " and 3 more, see plan.frozen (" in folded and "tower5" not in folded
    plan.summary(verbose=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("frozen: ")]
    assert lines == [f"frozen: {name} ({reason})" for name, reason in plan.frozen.items()]
    assert {"own", *(f"tower{number}" for number in range(6))} == set(plan.frozen)
    inspection = ep.inspect(model)
    assert inspection.frozen == plan.frozen
    (own,) = [line for line in text_of(inspection.channel_table()).splitlines() if line.startswith("own ")]
    assert own.split(maxsplit=1)[1].strip() == plan.frozen["own"]
