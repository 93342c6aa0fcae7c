"""Models, plans and settings that are odd, each of which went wrong once."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import edgeprune as ep
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.flavor import keras_module


def dense_net(K, middle=None, **outer):
    i = K.Input((6,))
    x = K.layers.Dense(8, name="a")(i)
    x = middle(x) if middle else x
    return K.Model(i, K.layers.Dense(3)(K.layers.Dense(8, name="b")(x)), **outer)


def test_what_a_layer_writes_when_it_is_built_does_not_stay(flavor):
    K = keras_module(flavor)

    class Center(K.layers.Layer):
        def build(self, shape):
            self.center = self.add_weight(name="center", shape=(shape[-1],), initializer="zeros", trainable=False)
            self.center.assign(np.ones(shape[-1], np.float32))

        def call(self, x, training=False):
            return x

    model = dense_net(K, Center(name="center"))
    model.get_layer("center").center.assign(np.arange(8, dtype=np.float32))
    smaller = ep.prune_channels(model, pruning_ratio=0.5)
    np.testing.assert_array_equal(np.asarray(smaller.get_layer("center").center), np.arange(8))


def test_the_proof_leaves_statistics_of_the_model_alone(flavor):
    K = keras_module(flavor)
    norm = K.layers.BatchNormalization(name="norm")
    model = dense_net(K, lambda x: norm(x, training=True))
    ep.prune_channels(model, pruning_ratio=0.5)
    np.testing.assert_array_equal(np.asarray(norm.moving_mean), 0)


def test_states_that_are_carried_are_compared_from_zero_and_stay(flavor):
    K = keras_module(flavor)
    i = K.Input(batch_shape=(2, 5, 4))
    lstm = K.layers.LSTM(8, stateful=True)
    model = K.Model(i, K.layers.Dense(3)(K.layers.Dense(6)(lstm(i))))
    model(np.random.default_rng(0).random((2, 5, 4), np.float32))
    before = [np.array(state) for state in lstm.states]
    smaller = ep.prune_channels(model, pruning_ratio=0.5)
    for state, old in zip(lstm.states, before, strict=True):
        np.testing.assert_array_equal(np.asarray(state), old)
    made = next(layer for layer in smaller.layers if layer.name == lstm.name)
    assert all(not np.asarray(state).any() for state in made.states)


@pytest.mark.above_flavor
def test_a_model_that_is_random_is_told_so(flavor):
    K = keras_module(flavor)

    class Always(K.layers.Dropout):
        def call(self, inputs, training=None):
            return super().call(inputs, training=True)

    model = dense_net(K, Always(0.5))
    with pytest.raises(ValueError, match="returns other values at each call"):
        ep.prune_channels(model, pruning_ratio=0.5)
    assert ep.prune_channels(model, pruning_ratio=0.5, verify=False).count_params() < model.count_params()


def test_a_layer_that_the_graph_calls_as_in_training_is_compared_as_its_keras_runs_it_at_inference(flavor):
    """Keras 3 overrides the graph's `training=True` there, and `tf_keras` does not."""
    K = keras_module(flavor)
    model = dense_net(K, lambda x: K.layers.Dropout(0.5)(x, training=True))
    x = np.random.default_rng(0).random((4, 6), np.float32)
    if np.array_equal(model(x, training=False), model(x, training=False)):
        assert ep.prune_channels(model, pruning_ratio=0.5).count_params() < model.count_params()
    else:
        with pytest.raises(ValueError, match="returns other values at each call"):
            ep.prune_channels(model, pruning_ratio=0.5)


@pytest.mark.above_flavor
def test_nan_is_not_the_fault_of_the_rebuild(flavor):
    model = dense_net(keras_module(flavor))
    model.layers[1].bias.assign([np.nan] * 8)
    with pytest.raises(ValueError, match=r"of layer 'a' .* holds NaN"):
        ep.prune_channels(model, pruning_ratio=0.5, importance="random")


def test_a_schedule_that_keras_does_not_know_is_made_anew(flavor):
    K = keras_module(flavor)

    class Warm(K.optimizers.schedules.LearningRateSchedule):
        def __init__(self, rate):
            self.rate = rate

        def __call__(self, step):
            return self.rate

        def get_config(self):
            return {"rate": self.rate}

    model = dense_net(K)
    model.compile(K.optimizers.Adam(Warm(1e-3)), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smaller = ep.prune_channels(model, pruning_ratio=0.5)
    smaller.fit(np.zeros((8, 6)), np.zeros((8, 3)), verbose=0)


def test_what_cannot_be_compiled_anew_is_given_uncompiled(flavor):
    K = keras_module(flavor)

    class Odd(K.optimizers.SGD):
        def __init__(self, needed, **settings):
            super().__init__(**settings)

    model = dense_net(K)
    model.compile(Odd(3), "mse")
    with pytest.warns(UserWarning, match="is not compiled"):
        smaller = ep.prune_channels(model, pruning_ratio=0.5)
    assert smaller.count_params() < model.count_params()


def test_a_vocabulary_stays(flavor):
    K = keras_module(flavor)
    words = K.layers.TextVectorization(10, output_sequence_length=4)
    words.adapt(["a b c", "d e"])
    i = K.Input((1,), dtype="string")
    x = K.layers.Flatten()(K.layers.Embedding(10, 8)(words(i)))
    smaller = ep.prune_channels(K.Model(i, K.layers.Dense(2)(x)), pruning_ratio=0.5)
    made = next(layer for layer in smaller.layers if layer.name == words.name)
    assert made.get_vocabulary() == words.get_vocabulary()


def test_channels_may_be_given_as_a_mask():
    model = dense_net(keras_module("keras"))
    plan = ep.plan_channels(model, pruning_ratio=0)
    by_mask = plan.drop("a", np.array([False] * 6 + [True, True]))
    np.testing.assert_array_equal(by_mask.kept_mask, plan.drop("a", [6, 7]).kept_mask)
    for wrong in ([1.9], "12", [True, False], [[0, 1]], 10**30):
        with pytest.raises(ValueError, match="Group 'a' has the channels 0 to 7"):
            plan.drop("a", wrong)


@pytest.mark.parametrize("kept", [[-1, 0], [0, 99], [0.5], [True, 0], 3, [[0, 1]], None, "01"])
def test_edited_json_is_read_strictly(kept):
    model = dense_net(keras_module("keras"))
    content = json.loads(ep.plan_channels(model, pruning_ratio=0).drop("a", 0).to_json())
    content["groups"]["a"]["kept"] = kept
    with pytest.raises(ValueError, match="no channel plan|has the channels"):
        ChannelPlan.from_json(model, json.dumps(content))


@pytest.mark.parametrize(
    "edit", [{"groups": []}, {"groups": None}, {"frozen": 3}, {"weights": None}, {"groups": {"a": 1}}]
)
def test_json_of_another_shape_is_no_plan(edit):
    model = dense_net(keras_module("keras"))
    content = json.loads(ep.plan_channels(model, pruning_ratio=0.5).to_json()) | edit
    with pytest.raises(ValueError, match="no channel plan"):
        ChannelPlan.from_json(model, json.dumps(content))


@pytest.mark.above_flavor
def test_weights_put_back_after_the_training_are_noticed(flavor):
    K = keras_module(flavor)
    model = dense_net(K)
    model.compile("sgd", "mse")
    whole = model.get_weights()
    pruning = ep.ChannelPruning(ep.PolynomialDecay(0.0, 0.5, frequency=1), pruning_ratio=0.5)
    model.fit(np.ones((32, 6)), np.ones((32, 3)), batch_size=4, verbose=0, callbacks=[pruning])
    model.set_weights(whole)
    with pytest.warns(UserWarning, match="masked hold weights"):
        ep.strip_pruning(model)


def test_wrapped_models_are_stripped_first():
    K = keras_module("tf_keras")
    wrapped = ep.prune_low_magnitude(dense_net(K))
    with pytest.raises(ValueError, match="strip_pruning"):
        ep.plan_channels(wrapped, pruning_ratio=0.5)


def test_classes_that_are_made_in_another_way_become_plain_ones(flavor):
    K = keras_module(flavor)

    class Wide(K.Sequential):
        def __init__(self, width):
            super().__init__([K.Input((6,)), K.layers.Dense(width), K.layers.Dense(3)])

    class Named(K.Model):
        def __init__(self, inputs, outputs, alpha):
            super().__init__(inputs, outputs)
            self.alpha = alpha

    plain = dense_net(K)
    for model in (Wide(8), Named(plain.inputs, plain.outputs, 0.5)):
        assert ep.prune_channels(model, pruning_ratio=0.5).count_params() < model.count_params()


@pytest.mark.above_flavor
def test_a_part_of_size_zero(flavor):
    K = keras_module(flavor)
    model = dense_net(K, lambda x: K.layers.Concatenate()([x, x[:, :0]]))
    plan = ep.plan_channels(model, pruning_ratio=0.5)
    assert plan.verify().passed
    assert plan.channels.after < plan.channels.before


@pytest.mark.above_flavor
def test_an_input_of_size_zero(flavor):
    K = keras_module(flavor)
    i = K.Input((0,))
    smaller = ep.prune_channels(K.Model(i, K.layers.Dense(3)(K.layers.Dense(8, name="a")(i))), pruning_ratio=0.5)
    assert smaller.get_layer("a").units == 4


def test_a_layer_called_on_what_it_gave(flavor):
    """Its input and output go together; called on the model's own input too, they stay."""
    K = keras_module(flavor)
    loop = K.layers.Dense(8, name="b_loop")
    model = dense_net(K, lambda x: loop(loop(loop(x))))
    smaller = ep.prune_channels(model, pruning_ratio=0.5, scope="local")
    assert smaller.get_layer("b_loop").kernel.shape == (4, 4)
    i = K.Input((8,))
    layer = K.layers.Dense(8, name="loop")
    with pytest.raises(ValueError, match="loop is also called on frozen channels"):
        ep.plan_channels(K.Model(i, K.layers.Dense(3)(layer(layer(i)))), pruning_ratio=0.5)
