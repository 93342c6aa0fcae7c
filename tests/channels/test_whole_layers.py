"""Layers that stay whole are made again, whatever their configuration; attention as one function in the graph."""

import keras
import numpy as np
import pytest

from edgeprune import flavor
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.channels.rebuild.proof import prove


class Forgetful(keras.layers.Layer):
    """Its configuration lacks what its constructor asks for."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.inner = keras.layers.Dense(4)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x) * self.factor if keras.ops.is_tensor(x) and int(x.shape[-1]) else x

    def get_config(self):
        return {"name": self.name, "unknown": 1}


def halved(model):
    graph = trace(model)
    kept = graph.full_mask()
    for group in graph.groups:
        if group.frozen is None:
            kept[group.classes[1::2]] = False
    smaller = ChannelPlan(graph, kept).apply(verify=False)
    return graph, kept, smaller


def test_a_layer_without_changes_is_copied_where_its_configuration_does_not_make_it():
    x = keras.Input((6,))
    layer = Forgetful(3.0)
    keras.Model(x, layer(x))
    copy = flavor.clone_layer(layer, name="other")
    data = np.random.default_rng(0).random((2, 6), np.float32)
    assert copy.name == "other" and layer.name != "other"
    assert not copy._inbound_nodes and layer._inbound_nodes
    np.testing.assert_array_equal(copy(data), layer(data))
    copy.inner.kernel.assign(copy.inner.kernel + 1)
    assert not np.allclose(copy(data), layer(data))
    assert [id(v) for v in copy.trainable_weights] == [id(copy.inner.kernel), id(copy.inner.bias)]


def test_a_layer_with_changes_says_what_is_wrong_with_its_configuration():
    layer = Forgetful(3.0, name="lost")
    with pytest.raises(ValueError, match="'lost' of the class Forgetful"):
        flavor.clone_layer(layer, units=3)


@pytest.mark.parametrize(("shared", "scale"), [(4, None), (4, 0.3), (2, 0.3)])
def test_attention_as_a_function(shared, scale):
    x = keras.Input((5, 8))
    sizes = {"query": 4, "key": shared, "value": shared}
    q, k, v = (keras.layers.EinsumDense("btc,cnh->btnh", (5, heads, 6), name=name)(x) for name, heads in sizes.items())
    given = keras.ops.dot_product_attention(q, k, v, scale=scale)
    model = keras.Model(x, keras.layers.EinsumDense("btnh,nhc->btc", (5, 3))(given))
    graph, kept, smaller = halved(model)
    proof = prove(graph, kept, smaller)
    assert proof.passed
    query, key = smaller.get_layer("query").kernel.shape, smaller.get_layer("key").kernel.shape
    assert (query[1], key[1]) == ((2, 2) if shared == 4 else (4, 2))
    assert query[2] == key[2] == smaller.get_layer("value").kernel.shape[2] == (6 if scale is None else 3)


def test_attention_as_a_function_is_flattened_as_wide_as_it_is():
    x = keras.Input((5, 8))
    q, k, v = (keras.layers.EinsumDense("btc,cnh->btnh", (5, 4, 6))(x) for _ in range(3))
    given = keras.layers.Flatten()(keras.ops.dot_product_attention(q, k, v))
    graph, kept, smaller = halved(keras.Model(x, keras.layers.Dense(3)(given)))
    assert prove(graph, kept, smaller).passed
