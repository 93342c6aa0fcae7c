"""Scores of channels, each against its definition written out slice by slice."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from edgeprune import flavor as flavors
from edgeprune.channels.graph.coupling import ChannelGraph, Group, Slot
from edgeprune.channels.plan.importance import class_scores, relative

CHANNELS = 5


def net(flavor, compiled=True):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.Conv2D(CHANNELS, 3, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Activation("tanh", name="tanh"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    rng = np.random.default_rng(1)
    norm = model.get_layer("norm")
    norm.set_weights([rng.uniform(0.5, 1.5, CHANNELS) for _ in norm.get_weights()])
    if compiled:
        model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def graph_of(model):
    """The graph by hand: classes 0 to 4 are the conv's channels, 5 and 6 the image's, 7 to 9 the outputs."""
    conv, norm, head = (model.get_layer(name) for name in ("conv", "norm", "head"))
    own, image, ends = np.arange(CHANNELS), np.array([5, 6]), np.array([7, 8, 9])
    gamma, beta, mean, variance = norm.weights
    slots = (
        Slot(conv.kernel, conv, "kernel", 2, image, reads=True),
        Slot(conv.kernel, conv, "kernel", 3, own, makes=True),
        Slot(conv.bias, conv, "bias", 0, own),
        Slot(gamma, norm, "gamma", 0, own),
        Slot(beta, norm, "beta", 0, own),
        Slot(mean, norm, "moving_mean", 0, own),
        Slot(variance, norm, "moving_variance", 0, own),
        Slot(head.kernel, head, "kernel", 0, np.tile(own, 4), reads=True),
        Slot(head.kernel, head, "kernel", 1, ends, makes=True),
        Slot(head.bias, head, "bias", 0, ends),
    )
    groups = (
        Group("conv", own, tuple(s for s in slots if s.classes[0] == 0), None, ("conv",)),
        Group("head", ends, tuple(s for s in slots if s.classes[0] == 7), "output of the model", ("head",)),
    )
    return ChannelGraph(model, 10, {}, groups, slots, (), (), (), {})


def parts(model):
    """Per channel of the conv: its filter, its gamma, and the rows of the head that read it."""
    kernel, gamma = np.asarray(model.get_layer("conv").kernel), np.asarray(model.get_layer("norm").gamma)
    head = np.asarray(model.get_layer("head").kernel)
    return [(kernel[..., c], gamma[c], head[c::CHANNELS]) for c in range(CHANNELS)]


def samples(count=24):
    rng = np.random.default_rng(2)
    return rng.standard_normal((count, 4, 4, 2)).astype("float32"), rng.integers(0, 3, count)


@pytest.mark.above_flavor
def test_norms_are_summed_over_all_slices(flavor):
    model = net(flavor)
    l1 = [np.abs(k).sum() + abs(g) + np.abs(h).sum() for k, g, h in parts(model)]
    l2 = [np.sqrt((k**2).sum() + g**2 + (h**2).sum()) for k, g, h in parts(model)]
    np.testing.assert_allclose(class_scores(graph_of(model), "l1")[:CHANNELS], l1, rtol=1e-5)
    np.testing.assert_allclose(class_scores(graph_of(model), "l2")[:CHANNELS], l2, rtol=1e-5)


@pytest.mark.above_flavor
def test_bn_scale_is_gamma_and_says_nothing_without(flavor):
    model = net(flavor)
    scores = class_scores(graph_of(model), "bn_scale")
    np.testing.assert_allclose(scores[:CHANNELS], [abs(g) for _, g, _ in parts(model)], rtol=1e-6)
    assert np.isnan(scores[CHANNELS:]).all()


def test_lamp_is_the_share_of_what_is_as_large():
    graph = graph_of(net("keras"))
    squares = class_scores(graph, "l2")[:CHANNELS] ** 2
    expected = [square / squares[squares >= square].sum() for square in squares]
    scores = class_scores(graph, "lamp")[:CHANNELS]
    np.testing.assert_allclose(scores, expected, rtol=1e-9)
    assert scores.max() == 1.0


def test_fpgm_finds_the_filter_amid_the_others():
    model = net("keras")
    kernel = np.random.default_rng(0).standard_normal((3, 3, 2, CHANNELS)).astype("float32")
    kernel[..., 2] = kernel.mean(axis=-1)
    model.get_layer("conv").kernel.assign(kernel)
    scores = class_scores(graph_of(model), "fpgm")[:CHANNELS]
    filters = kernel.reshape(-1, CHANNELS).T
    expected = [sum(np.linalg.norm(a - b) for b in filters) for a in filters]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    assert scores.argmin() == 2


def test_fpgm_of_equal_filters_is_zero():
    model = net("keras")
    model.get_layer("conv").kernel.assign(np.full((3, 3, 2, CHANNELS), 0.3, "float32"))
    np.testing.assert_allclose(class_scores(graph_of(model), "fpgm")[:CHANNELS], 0, atol=1e-5)


def loss_of(model, x, y):
    """Mean cross-entropy, in NumPy on the model's outputs."""
    outputs = np.asarray(model(x, training=False), np.float64)
    return -np.log(outputs[np.arange(len(y)), y]).mean()


def test_taylor_is_the_slope_of_the_loss_along_each_slice(flavor):
    model = net(flavor)
    x, y = samples()
    scores = class_scores(graph_of(model), "taylor", data=(x, y), batch_size=24)

    def slope(variable, index, step=1e-2):
        before = np.asarray(variable).copy()
        losses = []
        for scale in (1 + step, 1 - step):
            changed = before.copy()
            changed[index] *= scale
            variable.assign(changed)
            losses.append(loss_of(model, x, y))
        variable.assign(before)
        return (losses[0] - losses[1]) / (2 * step)

    conv, norm, head = (model.get_layer(name) for name in ("conv", "norm", "head"))
    for c in range(CHANNELS):
        expected = sum(
            abs(slope(variable, index))
            for variable, index in [
                (conv.kernel, (..., c)),
                (conv.bias, c),
                (norm.gamma, c),
                (norm.beta, c),
                (head.kernel, slice(c, None, CHANNELS)),
            ]
        )
        assert scores[c] == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_fisher_is_half_the_squares_of_weight_times_gradient(flavor):
    import tensorflow as tf

    model = net(flavor)
    x, y = samples()
    scores = class_scores(graph_of(model), "fisher", data=(x, y), batch_size=8)
    kernels = [model.get_layer(name).weights for name in ("conv", "norm", "head")]
    variables = [flavors.tf_variable(v) for v in (*kernels[0], *kernels[1][:2], kernels[2][0])]
    expected = np.zeros(CHANNELS)
    for start in range(0, 24, 8):
        with tf.GradientTape() as tape:
            outputs = model(x[start : start + 8], training=False)
            loss = -tf.reduce_mean(tf.math.log(tf.gather(outputs, y[start : start + 8], batch_dims=1)))
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            term = (np.asarray(variable) * np.asarray(gradient)) ** 2 / 2
            if variable is variables[-1]:
                term = term.reshape(4, CHANNELS, 3).transpose(0, 2, 1)
            expected += term.reshape(-1, CHANNELS).sum(axis=0) / 3
    np.testing.assert_allclose(scores[:CHANNELS], expected, rtol=1e-3)


@pytest.mark.parametrize("importance", ["taylor", "fisher"])
@pytest.mark.above_flavor
def test_every_form_of_data_gives_the_same_and_leaves_the_model_alone(flavor, importance):
    import tensorflow as tf

    keras = flavors.keras_module(flavor)
    model = net(flavor)
    x, y = samples()
    before = [np.asarray(weight).copy() for weight in model.weights]

    sequence = keras.utils.PyDataset if flavor == flavors.KERAS_3 else keras.utils.Sequence

    class Batches(sequence):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return x[index * 8 : index * 8 + 8], y[index * 8 : index * 8 + 8]

    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    graph = graph_of(model)
    expected = class_scores(graph, importance, data=(x, y), batch_size=8)
    for data in (dataset, Batches(), [(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)]):
        np.testing.assert_allclose(class_scores(graph, importance, data=data), expected, rtol=1e-5)
    repeated = class_scores(graph, importance, data=dataset.repeat(), steps=3)
    np.testing.assert_allclose(repeated, expected, rtol=1e-5)
    weighted = class_scores(graph, importance, data=(x, y, np.full(24, 2.0)), batch_size=8)
    np.testing.assert_allclose(weighted, expected * (2 if importance == "taylor" else 4), rtol=1e-4)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), old)


def test_a_loss_given_is_used_and_several_outputs_are_weighed(flavor):
    keras = flavors.keras_module(flavor)
    single = net(flavor, compiled=False)
    x, y = samples()
    a, b = single.outputs[0], keras.layers.Dense(1, name="size")(single.get_layer("flatten").output)
    model = keras.Model(single.inputs, [a, b])
    size = np.zeros(24, "float32")
    graph = graph_of(model)
    losses = ["sparse_categorical_crossentropy", "mse"]
    model.compile("sgd", losses, loss_weights=[1.0, 0.5])
    compiled = class_scores(graph, "fisher", data=(x, [y, size]))
    named = class_scores(graph, "fisher", data=(x, {"head": y, "size": size}), loss={"head": losses[0], "size": "mse"})
    first = class_scores(graph, "fisher", data=(x, [y, size]), loss={"head": losses[0]})
    alone = class_scores(graph_of(single), "fisher", data=(x, y), loss=losses[0])
    np.testing.assert_allclose(first, alone, rtol=1e-4)
    assert not np.allclose(compiled, named) and not np.allclose(compiled, first)


def test_random_follows_the_seed():
    graph = graph_of(net("keras"))
    np.testing.assert_array_equal(class_scores(graph, "random", seed=3), class_scores(graph, "random", seed=3))
    assert not np.array_equal(class_scores(graph, "random", seed=3), class_scores(graph, "random", seed=4))


def test_a_function_scores_the_groups_that_are_not_frozen():
    seen = []

    def importance(group):
        seen.append(group.name)
        return np.arange(group.size)[::-1]

    scores = class_scores(graph_of(net("keras")), importance)
    np.testing.assert_array_equal(scores[:CHANNELS], [4, 3, 2, 1, 0])
    assert seen == ["conv"]


def test_relative_scores_have_a_mean_of_one():
    graph = graph_of(net("keras"))
    scores = class_scores(graph, "l2")
    scaled = relative(graph, scores)
    np.testing.assert_allclose(scaled[:CHANNELS], scores[:CHANNELS] / scores[:CHANNELS].mean())
    np.testing.assert_array_equal(relative(graph, np.zeros(10)), np.zeros(10))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(importance="l3"), "importance must be"),
        (dict(importance="taylor"), "measured on data"),
        (dict(importance="taylor", data=samples()[0]), "Labels are missing"),
        (dict(importance="taylor", data=[]), "no batches"),
        (dict(importance="taylor", data=(np.zeros((3, 4, 4, 2)), np.zeros(4))), "different numbers"),
        (dict(importance="fisher", data=(samples()[0], [samples()[1]] * 2)), "1 outputs, got 2"),
        (dict(importance=lambda group: np.ones(3)), "scores of shape"),
        (dict(importance=lambda group: np.full(group.size, np.inf)), "returned infinite scores for group"),
        (dict(importance="taylor", data=samples(), batch_size=0), "batch_size must be a whole number of 1 or more"),
        (dict(importance="taylor", data=samples(), loss="none_such"), "none_such"),
        (dict(importance="taylor", data=(samples()[0] * np.nan, samples()[1])), "gradients .* NaN or infinite on this"),
    ],
)
def test_errors(arguments, words):
    with pytest.raises(ValueError, match=words):
        class_scores(graph_of(net("keras")), **arguments)


@pytest.mark.above_flavor
def test_without_a_loss_or_an_end_there_is_an_error(flavor):
    import tensorflow as tf

    graph = graph_of(net(flavor, compiled=False))
    with pytest.raises(ValueError, match="pass loss="):
        class_scores(graph, "taylor", data=samples())
    endless = tf.data.Dataset.from_tensor_slices(samples()).batch(8).repeat()
    with pytest.raises(ValueError, match="is infinite"):
        class_scores(graph, "taylor", data=endless, loss="mse")


def test_activation_is_what_the_next_layer_reads(flavor):
    """After tanh, `flatten` and the head see each channel at 4 places."""
    from edgeprune.channels.graph.trace import trace

    model = net(flavor)
    x, y = samples()
    graph = trace(model)
    group = next(group for group in graph.groups if group.name == "conv")
    before = [np.asarray(weight).copy() for weight in model.weights]
    scores = class_scores(graph, "activation", data=x, batch_size=12)[group.classes]
    kernel, bias, gamma, beta, mean, variance = before[:6]
    expected = 0
    for row in range(2):
        for column in range(2):
            window = x[:, row : row + 3, column : column + 3]
            conv = np.einsum("bijc,ijco->bo", window, kernel) + bias
            epsilon = model.get_layer("norm").epsilon
            expected += np.abs(np.tanh((conv - mean) / np.sqrt(variance + epsilon) * gamma + beta)).mean(axis=0) / 4
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    with pytest.raises(ValueError, match="activations .* NaN or infinite on this data"):
        class_scores(graph, "activation", data=x * np.nan)
    labelled = class_scores(graph, "activation", data={"x": x, "y": y}["x"])[group.classes]
    np.testing.assert_allclose(labelled, expected, rtol=1e-4)
    np.testing.assert_allclose(class_scores(graph, "activation", data=(x, y))[group.classes], expected, rtol=1e-4)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), old)


@pytest.mark.above_flavor
def test_activation_takes_several_inputs_by_name_or_in_order(flavor):
    from edgeprune.channels.graph.trace import trace

    keras = flavors.keras_module(flavor)
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    x = keras.layers.Concatenate()([keras.layers.Dense(4, name="left")(a), keras.layers.Dense(5, name="right")(b)])
    graph = trace(keras.Model([a, b], keras.layers.Dense(1)(x)))
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((6, 3)).astype("float32"), rng.standard_normal((6, 2)).astype("float32")]
    in_order = class_scores(graph, "activation", data=(arrays, None))
    by_name = class_scores(graph, "activation", data=dict(zip("ba", arrays[::-1], strict=True)))
    np.testing.assert_array_equal(in_order, by_name)
    with pytest.raises(ValueError, match="has 2 inputs"):
        class_scores(graph, "activation", data=arrays[0])


def test_fpgm_of_a_wide_layer():
    """Wider than the rows that are compared at a time."""
    kernel = np.random.default_rng(0).standard_normal((2, 1100)).astype("float32")
    slot = Slot(tf.Variable(kernel), None, "kernel", 1, np.arange(1100), makes=True)
    scores = class_scores(ChannelGraph(None, 1100, {}, (), (slot,), (), (), (), {}), "fpgm")
    expected = np.sqrt(((kernel[:, :, None] - kernel[:, None, :]) ** 2).sum(axis=0)).sum(axis=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
