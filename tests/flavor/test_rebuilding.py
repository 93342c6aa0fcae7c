"""One walk over a graph, one interpreter and one rebuilder, which the rest of the package uses."""

import numpy as np
import pytest

from edgeprune import flavor as flavors

X = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)


@pytest.fixture
def keras(flavor):
    return flavors.keras_module(flavor)


def net(keras):
    """A layer called twice, a model inside, an addition, two outputs in a dict."""
    L = keras.layers
    inputs = keras.Input((6,), name="inputs")
    shared = L.Dense(6, name="shared")
    x = shared(shared(inputs))
    first = keras.Input((6,))
    inside = keras.Model(first, L.BatchNormalization(name="norm")(L.Dense(6, name="dense")(first)), name="inside")
    joined = L.Add(name="join")([x, inside(x)])
    return keras.Model(inputs, {"b": L.Dense(2, name="b")(joined), "a": joined + 1.0}, name="net")


def outputs_of(model, x=X):
    return {name: np.asarray(value) for name, value in model(x, training=False).items()}


def test_a_rebuilt_model_is_the_same_on_weights_of_its_own(keras):
    model = net(keras)
    copy = flavors.Rebuilder().build(model)
    expected = outputs_of(model)
    assert list(copy.output_names) == list(model.output_names)
    assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
    for name, value in outputs_of(copy).items():
        np.testing.assert_array_equal(value, expected[name])
    for weight in copy.weights:
        weight.assign(np.zeros(weight.shape))
    for name, value in outputs_of(model).items():
        np.testing.assert_array_equal(value, expected[name])


def layers_without_names(keras):
    """Layers whose `__init__` takes no name, or whose configuration has none."""

    class Nothing(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(6)

        def build(self, shape):
            self.dense.build(shape)
            super().build(shape)

        def call(self, x):
            return self.dense(x)

    class Others(keras.layers.Dense):
        def __init__(self, **others):
            super().__init__(6, **others)

        def get_config(self):
            return {}

    return {"nothing": Nothing(), "own": Others(name="own")}


@pytest.mark.parametrize("name", ["nothing", "own"])
def test_a_layer_whose_class_takes_no_name_keeps_its_own_and_gets_a_new_one(keras, name):
    keras.backend.clear_session()
    layer = layers_without_names(keras)[name]
    inputs = keras.Input((6,), name="inputs")
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(layer(inputs)), name="net")
    copy = flavors.Rebuilder().build(model)
    assert [one.name for one in copy.layers] == ["inputs", name, "head"]
    assert [weight.name for weight in copy.weights] == [weight.name for weight in model.weights]
    np.testing.assert_array_equal(np.asarray(copy(X)), np.asarray(model(X)))
    renamed = flavors.Rebuilder(renamed={id(layer): "new"}).build(model)
    assert [one.name for one in renamed.layers] == ["inputs", "new", "head"]


def test_calls_are_bypassed_by_an_argument(keras):
    """The addition gives its shortcut: what led to its other input is not built."""
    model = net(keras)
    nodes = flavors.graph_nodes(model)[1]
    (join,) = (node for node in nodes if node.layer.name == "join")
    shorter = flavors.Rebuilder(instead={id(join.node): 0}).build(model)
    assert not {"inside", "join"} & {layer.name for layer in shorter.layers}
    kernel, bias = (np.asarray(weight) for weight in model.get_layer("shared").weights)
    np.testing.assert_allclose(outputs_of(shorter)["a"], (X @ kernel + bias) @ kernel + bias + 1, rtol=1e-5, atol=1e-6)


def test_weights_and_names_are_changed_by_arguments(keras):
    model = net(keras)
    head = model.get_layer("b")
    rebuilder = flavors.Rebuilder(cut=lambda weight: np.asarray(weight) * 2, renamed={id(head): "head"})
    doubled = rebuilder.build(model).get_layer("head")
    np.testing.assert_array_equal(np.asarray(doubled.kernel), np.asarray(head.kernel) * 2)


def test_any_values_flow_through_a_model(keras):
    """The depth of each layer, found by the interpreter that runs tensors elsewhere."""
    depth = {}

    def call(node, taken):
        depth.setdefault(node.layer.name, []).append(max(taken) + 1)
        return [max(taken) + 1] * len(node.outputs)

    def enter(node, inner, axes, taken):
        return flavors.run_model(inner, flavors.first_argument(node, taken), call, enter)

    flavors.run_model(net(keras), [0], call, enter)
    assert {name: depth[name] for name in ("shared", "dense", "norm", "join", "b")} == {
        "shared": [1, 2],
        "dense": [3],
        "norm": [4],
        "join": [5],
        "b": [6],
    }


def test_calls_are_listed_with_what_feeds_them(keras):
    calls, outputs = flavors.layer_calls(net(keras))
    names = [call.layer.name for call in calls]
    feeds = {call.layer.name: {names[number] for number in call.producers} for call in calls}
    assert feeds["join"] == {"shared", "norm"} and feeds["dense"] == {"shared"} and feeds["norm"] == {"dense"}
    assert len(outputs) == 2 and {"b"} < {names[number] for number in outputs}


def test_a_model_inside_whose_graph_is_not_known(keras):
    class Own(keras.Model):
        def call(self, x):
            return x

    inputs = keras.Input((6,))
    with pytest.raises(ValueError, match="subclassed"):
        flavors.layer_calls(keras.Model(inputs, Own(name="own")(inputs)))


def test_one_check_of_a_built_model(keras):
    flavors.check_built_model(net(keras))
    with pytest.raises(TypeError, match="Expected a Keras model, got list: \\[1\\]"):
        flavors.check_built_model([1])
    with pytest.raises(TypeError, match="Expected a Keras model, got Dense"):
        flavors.check_built_model(keras.layers.Dense(2))
    with pytest.raises(ValueError, match="Model 'open' is not built: call it on an example, or add an Input"):
        flavors.check_built_model(keras.Sequential([keras.layers.Dense(2)], name="open"))
