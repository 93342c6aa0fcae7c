"""Models inside `TimeDistributed`: their channels are groups like any other, wherever the wrapper stands."""

from __future__ import annotations

import numpy as np
import pytest
from nets.cuts import halved
from nets.samples import numbers

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.graph.trace import trace
from edgeprune.measure.macs import count_macs


@pytest.fixture
def keras(flavor):
    return flavors.keras_module(flavor)


def frame_net(keras, name="frames", width=6):
    """What each picture of a film goes through."""
    L = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(8, 3, activation="relu", name="conv"),
            L.BatchNormalization(name="norm"),
            L.GlobalAveragePooling2D(),
            L.Dense(width, activation="relu", name="features"),
        ],
        name=name,
    )


def film_net(keras, each):
    L = keras.layers
    film = keras.Input((4, 8, 8, 3))
    return keras.Model(film, L.Dense(2, name="head")(L.GRU(6, name="gru")(each(film))))


def silenced_outputs(graph, kept, inputs):
    """What the model computes with zeros in the weights that read dropped channels: the whole model, called once."""
    before = {id(slot.weight): (slot.weight, np.array(slot.weight)) for slot in graph.slots if slot.reads}
    for slot in graph.slots:
        if slot.reads:
            values = np.array(slot.weight)
            values[(slice(None),) * slot.axis + (~kept[slot.classes],)] = 0
            slot.weight.assign(values)
    expected = flavors.flatten(graph.model(inputs, training=False), graph.model)
    for weight, values in before.values():
        weight.assign(values)
    return [np.asarray(array) for array in expected]


def check(model, free, tmp_path=None, inputs=None):
    """Half of every group goes, proven by the proof and by the whole model called with silenced weights."""
    graph, smaller, proof = halved(model)
    assert proof.passed, str(proof)
    assert [group.name for group in graph.groups if not group.frozen] == free
    kept = graph.full_mask()
    rng = np.random.default_rng(1)
    for group in graph.groups:
        if not group.frozen:
            kept[rng.choice(group.classes, group.size // 2, replace=False)] = False
    smaller = ep.channels.ChannelPlan(graph, kept).apply()
    if inputs is None:
        inputs = [numbers(3, *(side or 5 for side in tensor.shape[1:])) for tensor in model.inputs]
        inputs = flavors.pack_inputs(model, inputs)
    given = [np.asarray(array) for array in flavors.flatten(smaller(inputs, training=False), model)]
    for old, new in zip(silenced_outputs(graph, kept, inputs), given, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-5)
    assert graph.macs == count_macs(model, inputs).total
    assert graph.remaining_macs(kept) == count_macs(smaller, inputs).total
    if tmp_path is not None:
        smaller.save(tmp_path / "smaller.keras")
        loaded = flavors.keras_of(model).models.load_model(tmp_path / "smaller.keras")
        for new, again in zip(given, flavors.flatten(loaded(inputs, training=False), model), strict=True):
            np.testing.assert_allclose(np.asarray(again), new, rtol=1e-5, atol=1e-6)
    return graph, smaller


def test_a_sequential_model(keras, tmp_path):
    model = film_net(keras, keras.layers.TimeDistributed(frame_net(keras), name="each"))
    graph, smaller = check(model, ["each/frames/conv", "each/frames/features", "gru"], tmp_path)
    inner = smaller.get_layer("each").layer
    assert type(inner) is type(model.get_layer("each").layer) and inner.name == "frames"
    assert inner.get_layer("conv").filters == 4 and inner.get_layer("features").units == 3
    assert tuple(smaller.get_layer("each").output.shape) == (None, 4, 3)


def branched(keras, L):
    """Two branches that are joined, and what is computed over channels."""
    i = keras.Input((6,))
    a, b = L.Dense(8, name="a")(i), L.Dense(8, name="b")(i)
    c = L.LayerNormalization(name="norm")(L.Dense(4, name="c")(L.Concatenate()([L.Add()([a, b]), b])))
    return keras.Model(i, c, name="branched")


def words(keras, L):
    """A sequence inside each step: a document of sentences."""
    i = keras.Input((5, 6))
    x = L.LayerNormalization(name="norm")(L.Dense(8, name="embed")(i))
    return keras.Model(i, L.Bidirectional(L.GRU(4, name="gru"), name="both")(x), name="words")


def inside_another(keras, L):
    """A model inside the model inside the wrapper."""
    inner = keras.Sequential([keras.Input((6,)), L.Dense(8, name="deep")], name="inner")
    return keras.Sequential([keras.Input((6,)), inner, L.Dense(4, name="flat")], name="around")


INSIDE = {
    branched: ((6,), {"each/branched/a", "each/branched/c"}),
    words: ((5, 6), {"each/words/embed", "each/words/both/forward_gru"}),
    inside_another: ((6,), {"each/around/inner/deep", "each/around/flat"}),
}


@pytest.mark.parametrize("build", INSIDE, ids=lambda build: build.__name__)
def test_a_functional_model(keras, build, tmp_path):
    L, (shape, names) = keras.layers, INSIDE[build]
    film = keras.Input((3, *shape))
    inner = L.TimeDistributed(build(keras, L), name="each")
    model = keras.Model(film, L.Dense(2, name="head")(L.GlobalAveragePooling1D()(inner(film))))
    graph, smaller, proof = halved(model)
    assert proof.passed, str(proof)
    assert {name for group in graph.groups if not group.frozen for name in group.layers} >= names
    assert list(graph.frozen) == ["head"]
    assert graph.macs == count_macs(model).total
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras")
    x = numbers(2, 3, *shape)
    np.testing.assert_allclose(np.asarray(loaded(x)), np.asarray(smaller(x)), rtol=1e-5, atol=1e-6)


def test_built_without_an_input(keras):
    L = keras.layers
    inner = keras.Sequential([L.Dense(8, activation="relu", name="a"), L.Dense(6, name="b")], name="inner")
    i = keras.Input((4, 5))
    check(keras.Model(i, L.Dense(2)(L.TimeDistributed(inner, name="each")(i))), ["each/inner/a", "each/inner/b"])


def test_steps_of_steps(keras, tmp_path):
    L = keras.layers
    inner = keras.Sequential([keras.Input((5,)), L.Dense(8, activation="relu", name="a"), L.Dense(6)], name="inner")
    i = keras.Input((2, 3, 5))
    x = L.TimeDistributed(L.TimeDistributed(inner, name="steps"), name="each")(i)
    _, smaller = check(
        keras.Model(i, L.Dense(2)(x)), ["each/steps/inner/a", f"each/steps/inner/{inner.layers[-1].name}"], tmp_path
    )
    assert smaller.get_layer("each").layer.layer.get_layer("a").units == 4


def test_one_model_called_as_it_is_and_on_each_step(keras):
    """A picture and a film through the same encoder: one set of weights, cut once. (No Keras loads such a file.)"""
    L = keras.layers
    encoder = frame_net(keras)
    film, picture = keras.Input((4, 8, 8, 3)), keras.Input((8, 8, 3))
    seen = L.TimeDistributed(encoder, name="each")(film)
    again = L.TimeDistributed(encoder, name="again")(film)
    x = L.Concatenate()([L.GlobalMaxPooling1D()(L.Add()([seen, again])), encoder(picture)])
    model = keras.Model([film, picture], L.Dense(2, name="head")(x))
    _, smaller = check(model, [f"{where(model, encoder)}/conv", f"{where(model, encoder)}/features"])
    assert smaller.get_layer("each").layer is smaller.get_layer("again").layer
    assert smaller.count_params() == sum(int(np.prod(weight.shape)) for weight in smaller.weights)


def where(model, layer):
    return flavors.layer_names(model)[id(layer)]


def test_in_a_model_that_is_used_twice(keras, tmp_path):
    L = keras.layers
    i = keras.Input((3, 8, 8, 3))
    tower = keras.Model(i, L.GRU(6, name="gru")(L.TimeDistributed(frame_net(keras), name="each")(i)), name="tower")
    one, two = keras.Input((3, 8, 8, 3)), keras.Input((3, 8, 8, 3))
    model = keras.Model([one, two], L.Dense(2, name="head")(L.Subtract()([tower(one), tower(two)])))
    names = ["tower/each/frames/conv", "tower/each/frames/features", "tower/gru"]
    check(model, names, tmp_path)


def test_steps_and_samples_of_any_number(keras):
    L = keras.layers
    inner = keras.Sequential([keras.Input((5,)), L.Dense(8, activation="relu", name="a"), L.Dense(6)], name="inner")
    i = keras.Input((None, 5))
    model = keras.Model(i, L.Dense(2, name="head")(L.TimeDistributed(inner, name="each")(i)))
    _, smaller, proof = halved(model)
    assert proof.passed
    assert np.asarray(smaller(np.zeros((2, 9, 5), "float32"))).shape == (2, 9, 2)
    i = keras.Input(batch_shape=(2, 3, 5))
    model = keras.Model(i, L.Dense(2, name="head")(L.TimeDistributed(inner, name="fixed")(i)))
    x = numbers(2, 3, 5)
    check(model, ["fixed/inner/a", where(model, inner.layers[-1])], inputs=x)


def test_masked_steps(keras):
    """What follows the wrapper skips the steps that are masked before it, in the proof too."""
    L = keras.layers
    inner = keras.Sequential([keras.Input((5,)), L.Dense(8, activation="relu", name="a"), L.Dense(6)], name="inner")
    i = keras.Input((4, 5))
    x = L.TimeDistributed(inner, name="each")(L.Masking(name="mask")(i))
    model = keras.Model(i, L.Dense(2, name="head")(L.LSTM(6, name="lstm")(x)))
    _, smaller, proof = halved(model)
    assert proof.passed, str(proof)
    x = numbers(2, 4, 5)
    x[0, 1:] = 0
    padded = x.copy()
    padded[1, 3] = 0
    silenced = ep.channels.plan_channels(model, pruning_ratio=0.5)
    smaller = silenced.apply()
    expected = silenced_outputs(silenced.graph, silenced.kept_mask, padded)[0]
    np.testing.assert_allclose(np.asarray(smaller(padded)), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(smaller(x)) - np.asarray(smaller(padded)))[0].max() == 0


@pytest.mark.parametrize("kind", [list, dict])
def test_several_inputs(kind):
    """Only `tf_keras` calls the model inside on several tensors."""
    keras = flavors.keras_module("tf_keras")
    L = keras.layers
    a, b = keras.Input((5,), name="x"), keras.Input((4,), name="y")
    h = L.Concatenate()([L.Dense(8, name="a")(a), L.Dense(6, name="b")(b)])
    pack = (lambda x, y: [x, y]) if kind is list else (lambda x, y: {"x": x, "y": y})
    inner = keras.Model(pack(a, b), L.Dense(4, name="c")(h), name="inner")
    x, y = keras.Input((3, 5)), keras.Input((3, 4))
    model = keras.Model([x, y], L.Dense(2, name="head")(L.TimeDistributed(inner, name="each")(pack(x, y))))
    check(model, [f"each/inner/{name}" for name in ("a", "b", "c")])


@pytest.mark.above_flavor
def test_importance_and_training_on_data(keras):
    """Scores that are measured on data see the channels inside; masks of training follow them."""
    model = film_net(keras, keras.layers.TimeDistributed(frame_net(keras), name="each"))
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = numbers(8, 4, 8, 8, 3), np.arange(8) % 2
    for importance in ("taylor", "activation"):
        plan = ep.plan_channels(model, pruning_ratio=0.5, importance=importance, data=(x, y), scope="local")
        assert "each/frames/conv" not in plan.frozen
        assert plan.apply().get_layer("each").layer.get_layer("conv").filters == 4
    pruning = ep.ChannelPruning(ep.ConstantSparsity(0.5, 0, frequency=1), pruning_ratio=0.5, scope="local")
    model.fit(x, y, epochs=2, verbose=0, callbacks=[pruning])
    values = np.asarray(model(x))
    smaller = ep.strip_pruning(model)
    assert smaller.get_layer("each").layer.get_layer("conv").filters == 4
    np.testing.assert_allclose(np.asarray(smaller(x)), values, rtol=1e-4, atol=1e-5)
    dead = ep.remove_dead_channels(model)
    assert dead.get_layer("each").layer.get_layer("conv").filters == 4


def test_frozen_by_what_surrounds_it(keras):
    """The wrapper's output is the model's own: the last layer inside stays, with its reason."""
    L = keras.layers
    inner = keras.Sequential([keras.Input((5,)), L.Dense(8, name="a"), L.Dense(6, name="b")], name="inner")
    i = keras.Input((4, 5))
    graph = trace(keras.Model(i, L.TimeDistributed(inner, name="each")(i)))
    assert [group.name for group in graph.groups if not group.frozen] == ["each/inner/a"]
    assert graph.frozen == {"each/inner/b": "output of the model (each)"}
