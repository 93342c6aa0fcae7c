import json
import zipfile

import numpy as np
import pytest
from nets.catalogue import SMALL_NETS, built
from nets.cuts import halved, random_mask, randomize

from edgeprune.channels.graph.rules import rule, rule_for
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.rebuild.proof import on_random_inputs, prove
from edgeprune.channels.rebuild.slicing import rebuild
from edgeprune.flavor import KERAS_3, call_model, keras_module
from edgeprune.measure.macs import count_macs

CASES = [(name, flavor) for name, net in SMALL_NETS.items() for flavor in net.flavors]
# A size that is not fixed counts as one place; Keras 3 extracts patches by a convolution.
MACS_ARE_DIFFERENT = {"any_size", "operations", "subclassed_with_a_gate"}
NOT_SAVED_BY_KERAS = {("attention_by_tensorflow", "tf_keras")}


@pytest.mark.parametrize("name,flavor", CASES)
def test_half_of_the_channels_go_and_what_remains_computes_the_same(name, flavor, tmp_path):
    model = randomize(built(name, flavor))
    weights = [np.array(np.asarray(weight)) for weight in model.weights]
    graph = trace(model)
    mask = random_mask(graph)
    assert (~mask).any()
    smaller = rebuild(graph, mask)
    found = prove(graph, mask, smaller)
    assert found.passed, found
    assert all((old == np.asarray(now)).all() for old, now in zip(weights, model.weights, strict=True))
    assert smaller.count_params() < model.count_params()
    if flavor == KERAS_3 and name not in MACS_ARE_DIFFERENT:
        assert graph.macs == count_macs(model).total
        assert graph.remaining_macs(mask) == count_macs(smaller).total
    if (name, flavor) in NOT_SAVED_BY_KERAS:
        return
    smaller.save(tmp_path / "smaller.keras")
    with zipfile.ZipFile(tmp_path / "smaller.keras") as parts:
        assert "edgeprune" not in parts.read("config.json").decode()
    loaded = keras_module(flavor).models.load_model(tmp_path / "smaller.keras")
    inputs = on_random_inputs(graph.walked, lambda inputs: inputs, seed=1)
    for a, b in zip(call_model(smaller, inputs), call_model(loaded, inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_the_mask_that_keeps_everything_gives_a_copy(flavor):
    model = randomize(built("nested", flavor))
    graph = trace(model)
    copy = rebuild(graph, graph.full_mask())
    assert [w.shape for w in copy.weights] == [w.shape for w in model.weights]
    x = np.random.default_rng(0).normal(size=(2, 10, 10, 3)).astype("float32")
    np.testing.assert_array_equal(model(x), copy(x))
    copy.weights[0].assign(np.asarray(copy.weights[0]) * 0)
    assert np.abs(np.asarray(model.weights[0])).max() > 0


def test_the_oracle_sees_a_wrong_weight(flavor):
    graph = trace(randomize(built("residual", flavor)))
    mask = random_mask(graph)
    smaller = rebuild(graph, mask)
    kernel = next(w for w in smaller.weights if "kernel" in w.name and len(w.shape) == 4)
    kernel.assign(np.asarray(kernel)[..., ::-1])
    assert not prove(graph, mask, smaller).passed


def test_the_oracle_sees_a_wrong_weight_behind_a_saturated_output(flavor):
    """Without training the signal of a deep net fades, and its softmax gives the same for every image."""
    keras = keras_module(flavor)
    inputs = x = keras.Input((16, 16, 3))
    for _ in range(12):
        x = keras.layers.Conv2D(8, 3, padding="same", kernel_initializer=keras.initializers.RandomNormal(0, 1e-3))(x)
        x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dense(5, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    graph = trace(keras.Model(inputs, x))
    mask = random_mask(graph)
    smaller = rebuild(graph, mask)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    assert np.ptp(np.asarray(smaller(images)), axis=-1).max() < 1e-6  # nothing to be seen at the output
    assert prove(graph, mask, smaller).passed
    kernel = smaller.layers[3].kernel
    kernel.assign(np.asarray(kernel)[..., ::-1])
    assert not prove(graph, mask, smaller).passed


def test_large_images_are_made_smaller_where_the_model_allows(flavor):
    keras = keras_module(flavor)
    sizes = []

    class Watching(keras.layers.Conv2D):
        def call(self, inputs):
            sizes.append(inputs.shape[1])
            return super().call(inputs)

    rule(Watching)(rule_for(keras.layers.Conv2D(1, 1)))
    needs_more = keras.Sequential([keras.layers.Conv2D(4, 20), keras.layers.GlobalAveragePooling2D()])
    for head, seen in ((keras.layers.GlobalAveragePooling2D(), 64), (needs_more, 80), (keras.layers.Flatten(), 128)):
        layers = [keras.Input((128, 128, 3)), Watching(4, 3, strides=4), head, keras.layers.Dense(2)]
        graph = trace(keras.Sequential(layers))
        mask = random_mask(graph)
        smaller = rebuild(graph, mask)
        sizes.clear()
        assert prove(graph, mask, smaller).passed
        assert sizes[-1] == seen


def test_the_oracle_compares_every_layer(flavor):
    model = randomize(built("residual", flavor))
    graph = trace(model)
    mask = random_mask(graph)
    found = prove(graph, mask, rebuild(graph, mask))
    assert found.calls == sum(type(layer).__name__ != "InputLayer" for layer in model.layers)
    assert f"{found.calls} calls of layers" in str(found)


def test_the_oracle_sees_the_wrong_channels(flavor):
    graph = trace(randomize(built("dense_connections", flavor)))
    smaller = rebuild(graph, random_mask(graph, seed=1))
    assert not prove(graph, random_mask(graph, seed=2), smaller).passed


def test_values_that_are_no_number_do_not_pass(flavor):
    graph = trace(randomize(built("dense_autoencoder", flavor)))
    mask = random_mask(graph)
    smaller = rebuild(graph, mask)
    smaller.weights[0].assign(np.full(smaller.weights[0].shape, np.nan, "float32"))
    assert not prove(graph, mask, smaller).passed


def test_structure_and_settings_stay(flavor):
    keras = keras_module(flavor)
    layers, regularizers = keras.layers, keras.regularizers
    inner = keras.Sequential(
        [keras.Input((8, 8, 6)), layers.Conv2D(8, 3, name="deep", kernel_constraint="non_neg")], name="inner"
    )
    i = keras.Input((8, 8, 3), name="picture")
    x = layers.Conv2D(
        6,
        3,
        padding="same",
        name="first",
        dtype="mixed_float16",
        kernel_regularizer=regularizers.L2(1e-3),
        kernel_initializer="he_uniform",
    )(i)
    x = layers.BatchNormalization(name="frozen", trainable=False, momentum=0.7)(x)
    model = keras.Model(i, layers.Dense(2, name="last")(layers.Flatten()(inner(x))), name="whole")
    inner.trainable = False
    graph, smaller, found = halved(model)
    assert found.passed
    assert type(smaller) is type(model) and smaller.name == "whole"
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]
    assert isinstance(smaller.get_layer("inner"), keras.Sequential)
    first = smaller.get_layer("first")
    assert first.filters == 3 and first.get_config()["kernel_initializer"]["class_name"] == "HeUniform"
    assert first.compute_dtype == "float16" and float(first.kernel_regularizer.l2) == pytest.approx(1e-3)
    assert smaller.get_layer("inner").get_layer("deep").kernel_constraint is not None
    assert smaller.get_layer("frozen").momentum == 0.7
    flags = [layer.trainable for layer in (smaller.get_layer("first"), smaller.get_layer("frozen"))]
    assert flags == [True, False] and not smaller.get_layer("inner").get_layer("deep").trainable
    assert len(smaller.trainable_weights) == len(model.trainable_weights)


def test_a_sequential_model_stays_one_and_shared_layers_stay_shared(flavor):
    _, smaller, found = halved(built("generator_of_padded_images", flavor))
    assert found.passed and isinstance(smaller, keras_module(flavor).Sequential)
    _, smaller, found = halved(built("siamese_product", flavor))
    assert found.passed
    towers = [layer for layer in smaller.layers if layer.name == "tower"]
    assert len(towers) == 1 and len(smaller.weights) == 6


def test_the_smaller_model_is_compiled_as_the_old_one_and_trains(flavor):
    keras = keras_module(flavor)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metric = keras.metrics.SparseCategoricalAccuracy(name="m")
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9), loss, metrics=["accuracy", metric])
    x, y = np.random.default_rng(0).normal(size=(32, 6)).astype("float32"), np.arange(32) % 3
    model.fit(x, y, epochs=1, verbose=0)
    graph = trace(model)
    smaller = rebuild(graph, random_mask(graph))
    assert float(smaller.optimizer.learning_rate) == pytest.approx(0.02)
    assert smaller.optimizer is not model.optimizer
    before = np.array(np.asarray(model.weights[0]))
    smaller.fit(x, y, epochs=1, verbose=0)
    assert (np.asarray(model.weights[0]) == before).all()
    assert set(smaller.evaluate(x, y, return_dict=True, verbose=0)) == set(
        model.evaluate(x, y, return_dict=True, verbose=0)
    )


def test_masks_that_do_not_fit_are_refused(flavor):
    graph = trace(built("plain_convolutions", flavor))
    with pytest.raises(ValueError, match="must have the shape"):
        rebuild(graph, np.ones(3, bool))
    mask = graph.full_mask()
    mask[graph.groups[0].classes] = False
    with pytest.raises(ValueError, match="drops every channel"):
        rebuild(graph, mask)
    mask = graph.full_mask()
    mask[graph.groups[-1].classes[0]] = False
    with pytest.raises(ValueError, match="cannot be dropped: output of the model"):
        rebuild(graph, mask)


def test_a_part_that_is_cut_out_keeps_a_channel(flavor):
    keras = keras_module(flavor)
    i = keras.Input((4,))
    x = keras.layers.Dense(8)(i)
    x = keras.layers.Concatenate()([x[:, :3] * 2.0, x[:, 3:]])
    graph = trace(keras.Model(i, keras.layers.Dense(2)(x)))
    assert [group.size for group in graph.groups if not group.frozen] == [3, 5]
    mask = graph.full_mask()
    mask[graph.groups[0].classes] = False
    with pytest.raises(ValueError, match="cut out of a tensor"):
        rebuild(graph, mask)


def test_the_config_is_plain(flavor):
    _, smaller, _ = halved(built("shuffle_units", flavor))
    assert "edgeprune" not in json.dumps(json.loads(smaller.to_json()))


def test_weights_are_made_with_their_values_at_once(monkeypatch):
    """Nothing is drawn at random and overwritten: that took most of the time of a rebuild."""
    import keras

    graph = trace(randomize(built("residual", "keras")))
    mask = random_mask(graph)
    assigned = []
    monkeypatch.setattr(keras.Variable, "assign", lambda variable, value: assigned.append(variable.path))
    smaller = rebuild(graph, mask)
    monkeypatch.undo()
    assert not assigned
    assert prove(graph, mask, smaller).passed
