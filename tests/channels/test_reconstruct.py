"""Reconstruction against independent oracles: exact where it can be, never worse than the cut, equal to lstsq."""

import keras
import numpy as np
import pytest
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st
from nets.cuts import random_mask, randomize

import edgeprune as ep
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.rebuild.slicing import rebuild
from edgeprune.channels.reconstruct.reconstruct import reconstruct
from edgeprune.channels.reconstruct.removal import ChannelRemoval

BOTH = pytest.mark.parametrize("K", [keras, tf_keras], ids=["keras", "tf_keras"])


def images(count=24, shape=(8, 8, 3), seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def cut_and_reconstructed(model, x, ratio=0.5, seed=0, **settings):
    graph = trace(randomize(model, seed))
    mask = random_mask(graph, ratio, seed)
    smaller = rebuild(graph, mask)
    cut = [np.asarray(weight).copy() for weight in smaller.weights]
    return cut, reconstruct(ChannelRemoval(graph, mask, smaller), x, **settings)


def redundant(model, layer, makes=-1):
    """The second half of a layer's filters become mixtures of the first half."""
    kernel, bias = (np.asarray(weight).copy() for weight in layer.weights[:2])
    half = kernel.shape[makes] // 2
    mixing = np.random.default_rng(3).normal(size=(half, kernel.shape[makes] - half)).astype(np.float32)
    kernel[..., half:] = kernel[..., :half] @ mixing
    bias[half:] = bias[:half] @ mixing
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
    return list(range(half, kernel.shape[makes]))


def without(model, dropped):
    plan = ep.plan_channels(model, pruning_ratio=0.1)
    for group in plan.groups:
        if group.frozen is None:
            plan = plan.keep(group.name)
    for name, indices in dropped.items():
        plan = plan.drop(name, indices)
    return plan


def linear_nets(K):
    L = K.layers

    def dense():
        x = i = K.Input((6,))
        x = L.Dense(8, name="a")(x)
        return K.Model(i, L.Dense(3)(L.Dense(5, name="b")(x)))

    def convolutions():
        x = i = K.Input((8, 8, 3))
        x = L.Conv2D(6, 3, padding="same", strides=2, name="a")(x)
        return K.Model(i, L.Dense(3)(L.Flatten()(L.Conv2D(4, 3, dilation_rate=2, padding="same", name="b")(x))))

    def normalized():
        x = i = K.Input((8, 8, 3))
        x = L.BatchNormalization()(L.Conv2D(6, 3, name="a")(x))
        x = L.BatchNormalization()(L.Conv2D(4, 3, use_bias=False)(x))
        return K.Model(i, L.Dense(3)(L.GlobalAveragePooling2D()(x)))

    def concatenated():
        x = i = K.Input((8, 8, 3))
        x = L.Concatenate()([L.Conv2D(6, 3, padding="same", name="a")(x), L.Conv2D(4, 3, padding="same")(x)])
        return K.Model(i, L.Conv2D(3, 1)(x))

    def residual():
        x = i = K.Input((8, 8, 3))
        y = L.Conv2D(4, 3, padding="same")(L.Conv2D(6, 3, padding="same", name="a")(x))
        return K.Model(i, L.Dense(2)(L.Add()([y, L.Conv2D(4, 1)(x)])))

    return {one.__name__: one for one in (dense, convolutions, normalized, concatenated, residual)}


@BOTH
@pytest.mark.parametrize("name", list(linear_nets(keras)))
def test_what_the_others_can_make_up_for_is_lost_without_a_trace(K, name):
    model = randomize(linear_nets(K)[name]())
    dropped = redundant(model, model.get_layer("a"))
    x = images(64, model.input_shape[1:])
    found = without(model, {"a": dropped}).reconstruct(x)
    assert found.before > 0.05
    assert found.after < 1e-4
    fresh = images(8, model.input_shape[1:], seed=9)
    wanted = model.predict(fresh, verbose=0)
    assert np.abs(found.model.predict(fresh, verbose=0) - wanted).max() < 1e-3 * np.abs(wanted).max()


def mixed_net(K, filters, branches, seed):
    """A random net of convolutions, normalizations, sums, joins and depthwise convolutions."""
    random, L = np.random.default_rng(seed), K.layers
    x = i = K.Input((6, 6, 2))
    for width in filters:
        y = L.Conv2D(width, int(random.integers(1, 4)), padding="same", use_bias=bool(random.integers(2)))(x)
        y = L.BatchNormalization()(y) if random.integers(2) else y
        y = L.ReLU()(y)
        if branches and random.integers(2):
            z = L.Conv2D(width, 1, activation="tanh")(x)
            y = L.Add()([y, z]) if random.integers(2) else L.Concatenate()([y, z])
        x = L.DepthwiseConv2D(3, padding="same")(y) if random.integers(2) else y
    return K.Model(i, L.Dense(3, activation="softmax")(L.Flatten()(x)))


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(2, 7), min_size=1, max_size=3), st.booleans(), st.integers(0, 10**6))
def test_no_layer_and_no_output_is_worse_than_the_cut(filters, branches, seed):
    model = mixed_net(keras, filters, branches, seed)
    _, found = cut_and_reconstructed(model, images(20, (6, 6, 2), seed), seed=seed)
    assert found.after <= found.before
    assert all(layer.after <= layer.before for layer in found.layers)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["SimpleRNN", "LSTM", "GRU"]), st.integers(2, 7), st.booleans()),
        min_size=1,
        max_size=2,
    ),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_no_recurrent_layer_and_no_output_is_worse_than_the_cut(stack, both_ways, seed):
    inputs = x = keras.Input((5, 3))
    for kind, units, backwards in stack:
        layer = getattr(keras.layers, kind)(units, return_sequences=True, go_backwards=backwards and not both_ways)
        x = (keras.layers.Bidirectional(layer) if both_ways else layer)(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    _, found = cut_and_reconstructed(model, images(20, (5, 3), seed), seed=seed)
    assert found.after <= found.before
    assert all(layer.after <= layer.before for layer in found.layers)


@BOTH
def test_the_same_data_give_the_same_weights_and_the_original_stays(K):
    model = mixed_net(K, [6, 5], True, 3)
    x = images(20, (6, 6, 2))
    _, first = cut_and_reconstructed(model, x)
    before = [np.asarray(weight).copy() for weight in model.weights]
    _, second = cut_and_reconstructed(model, x, batch_size=32)
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(weight))
    for one, other in zip(first.model.weights, second.model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert "output" in str(first)


def test_the_cut_weights_stay_where_the_output_would_be_worse(monkeypatch):
    from edgeprune.channels.reconstruct import reconstruct as module

    errors = iter([0.5, 0.6])
    monkeypatch.setattr(module, "distance", lambda outputs: next(errors))
    cut, found = cut_and_reconstructed(mixed_net(keras, [6, 5], False, 4), images(20, (6, 6, 2)))
    assert (found.before, found.after, found.layers) == (0.5, 0.5, ())
    assert all("would grow" in reason for reason in found.unsolved.values())
    for old, new in zip(cut, found.model.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))


def test_layers_that_are_not_trained_are_solved_too():
    model = mixed_net(keras, [6, 5], False, 4)
    for layer in model.layers:
        layer.trainable = False
    cut, found = cut_and_reconstructed(model, images(20, (6, 6, 2)))
    assert any((old != np.asarray(new)).any() for old, new in zip(cut, found.model.weights, strict=True))
    wanted, given = (one.predict(images(20, (6, 6, 2)), verbose=0) for one in (model, found.model))
    assert np.linalg.norm(wanted - given) / np.linalg.norm(wanted - wanted.mean(0)) == pytest.approx(
        found.after, rel=1e-3
    )


@BOTH
def test_a_shared_tower_is_solved_once_for_all_its_uses(K):
    L = K.layers
    i = K.Input((8,))
    tower = K.Model(i, L.Dense(8, name="second")(L.Dense(12, activation="relu", name="first")(i)), name="tower")
    a, b = K.Input((8,)), K.Input((8,))
    model = K.Model([a, b], L.Dense(2)(L.Concatenate()([tower(a), tower(b)])))
    x = [images(60, (8,), seed) for seed in (1, 2)]
    _, found = cut_and_reconstructed(
        model, dict(zip([t.name for t in model.inputs], x, strict=True)) if K is keras else x
    )
    names = [layer.name for layer in found.layers]
    assert len(names) == len(set(names)) == 2  # the first layer reads what was not changed
    assert {layer.name: layer.rows for layer in found.layers}["tower/second"] == 120
    assert found.after < found.before


@BOTH
def test_steps_count_as_samples_inside_time_distributed_models(K):
    L = K.layers
    i = K.Input((4, 4, 2))
    inner = K.Model(i, L.Dense(3)(L.Flatten()(L.Conv2D(6, 3, activation="relu")(i))))
    x = K.Input((5, 4, 4, 2))
    model = K.Model(x, L.Dense(2)(L.LSTM(4)(L.TimeDistributed(inner)(x))))
    _, found = cut_and_reconstructed(model, images(20, (5, 4, 4, 2)))
    assert max(layer.rows for layer in found.layers) == 100
    assert found.after < found.before
    assert all(name.endswith("recurrent_kernel") for name in found.unsolved)  # with 20 samples it may do no good


def recurrent_layers(K):
    L = K.layers
    return {
        "rnn": L.SimpleRNN(8, return_sequences=True),
        "lstm": L.LSTM(8),
        "gru": L.GRU(8),
        "backwards": L.LSTM(8, go_backwards=True, use_bias=False),
        "bidirectional": L.Bidirectional(L.GRU(8)),
        "stacked": L.RNN(L.StackedRNNCells([L.LSTMCell(8), L.GRUCell(8)])),
    }


@BOTH
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru", "backwards", "bidirectional", "stacked"])
def test_kernels_that_read_states_make_up_for_units_that_are_cut(K, kind):
    def recurrent_net(twins):
        i, layer = K.Input((6, 5)), recurrent_layers(K)[kind]
        model = randomize(K.Model(i, K.layers.Dense(2)(layer(i))))
        for weight in layer.weights if twins else ():  # the second half of the units does what the first does
            values = np.array(weight)
            of_gates = values.reshape(*values.shape[:-1], -1, 8)
            of_gates[..., 4:] = of_gates[..., :4]
            weight.assign(values)
        return model

    for twins in (True, False):
        model = recurrent_net(twins)
        plan = ep.plan_channels(model, pruning_ratio=0.5)
        for group in plan.groups:
            if group.frozen is None:
                plan = plan.keep(group.name).drop(group.name, range(4, 8))
        found = plan.reconstruct(images(200, (6, 5)))
        recurrent = [layer for layer in found.layers if layer.name.endswith("recurrent_kernel")]
        if twins:
            assert found.before > 0.05 and found.after < 1e-4
            assert recurrent and not found.unsolved
        else:
            assert found.after < found.before
            assert all(layer.after <= layer.before for layer in recurrent)


@BOTH
def test_what_a_state_is_reset_for_before_is_listed(K):
    i = K.Input((6, 5))
    model = randomize(K.Model(i, K.layers.Dense(2)(K.layers.GRU(8, reset_after=False)(i))))
    found = ep.plan_channels(model, pruning_ratio=0.5).reconstruct(images(40, (6, 5)))
    assert found.after < found.before
    (reason,) = found.unsolved.values()
    assert "own state" in reason


@pytest.mark.parametrize("attention, reads_whole", [("heads", False), ("dims", False), ("heads", True)])
def test_attention_is_solved_inside(attention, reads_whole):
    L = keras.layers
    i = keras.Input((6, 8))
    x = i if reads_whole else L.Dense(8, activation="tanh")(i)
    x = L.MultiHeadAttention(4, 4, name="attention")(x, i)
    model = randomize(keras.Model(i, L.Dense(2)(x)))
    plan = ep.plan_channels(model, pruning_ratio=0.5, attention=attention)
    found = plan.reconstruct(images(80, (6, 8)))
    assert "attention/attention_output" in {layer.name for layer in found.layers}
    assert not found.unsolved
    assert found.after < 0.8 * found.before


def test_a_layer_of_ones_own_keeps_the_cut_weights_and_is_named():
    class Scores(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

        def call(self, x):
            return keras.ops.matmul(x, self.kernel)

    from edgeprune.channels import rule

    @rule(Scores)
    def scores(call):
        call.read(call.x, -1, call.layer.kernel, 0)
        return call.output({})

    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8), Scores(name="scores")])
    _, found = cut_and_reconstructed(model, images(20, (5,)))
    assert list(found.unsolved) == ["scores/kernel"]
    assert "scores/kernel" in str(found)


def test_streams_of_more_than_the_memory_are_kept_on_disk(monkeypatch):
    from edgeprune.channels.reconstruct import stream

    model = mixed_net(keras, [6, 5], True, 3)
    x = images(20, (6, 6, 2))
    _, held = cut_and_reconstructed(model, x)
    monkeypatch.setattr(stream.Store.__init__, "__defaults__", (2000,))
    _, spilled = cut_and_reconstructed(model, x)
    for one, other in zip(held.model.weights, spilled.model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("stateful, sizes", [(False, [3, 3, 2, 2]), (True, [8, 2])])
def test_batches_of_large_samples_are_divided(stateful, sizes, monkeypatch):
    from edgeprune.channels.reconstruct import stream

    monkeypatch.setattr(stream, "MOST_INPUT", 3 * 4 * 5 * 4)  # three samples
    layers = keras.layers
    inputs = keras.Input((4, 5), batch_size=None if not stateful else 8)
    model = keras.Model(inputs, layers.GRU(3, stateful=stateful)(inputs))
    with stream.Store() as store:
        (given,) = stream.input_streams(model, images(10, (4, 5)), 8, None, store)
        np.testing.assert_array_equal(np.concatenate(list(given)), images(10, (4, 5)))
        assert [len(batch) for batch in given] == sizes


def test_bad_data_is_refused_in_one_sentence():
    model = randomize(keras.Sequential([keras.Input((5,)), keras.layers.Dense(8), keras.layers.Dense(2)]))
    plan = ep.plan_channels(model, pruning_ratio=0.5)
    with pytest.raises(ValueError, match="no batches|no samples|empty"):
        plan.apply(reconstruct=np.zeros((0, 5)))
    with pytest.raises(ValueError, match="shape"):
        plan.apply(reconstruct=np.zeros((8, 4)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        plan.apply(reconstruct=np.full((8, 5), np.nan))
    with pytest.raises(TypeError, match="data must be"):
        plan.apply(reconstruct=3)
    with pytest.warns(UserWarning, match="fewer samples"):
        plan.reconstruct(images(3, (5,)))


@BOTH
def test_recalibrated_statistics_are_the_moments_that_numpy_computes(K):
    L = K.layers
    model = randomize(
        K.Sequential([K.Input((5,)), L.Dense(4), L.BatchNormalization(), L.ReLU(), L.BatchNormalization()])
    )
    x = images(50, (5,))
    found = ep.recalibrate_batch_norm(model, x, batch_size=16)
    dense, first, _, second = found.layers[-4:]
    kernel, bias = (np.asarray(weight, np.float64) for weight in dense.weights)
    h = x @ kernel + bias
    gamma, beta, mean, variance = (np.asarray(weight, np.float64) for weight in first.weights)
    np.testing.assert_allclose(mean, h.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(variance, h.var(axis=0), rtol=1e-4)
    h = np.maximum((h - mean) / np.sqrt(variance + first.epsilon) * gamma + beta, 0)
    np.testing.assert_allclose(np.asarray(second.moving_mean), h.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(np.asarray(second.moving_variance), h.var(axis=0), rtol=1e-4)
    assert not np.allclose(np.asarray(model.layers[-1].moving_mean), h.mean(axis=0))
