"""The importance by reconstruction against least squares on subsets, and what must go first in nets of all kinds."""

import itertools

import keras
import numpy as np
import pytest
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st
from nets.cuts import randomize

import edgeprune as ep
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.importance import class_scores
from edgeprune.channels.plan.solver import per_cost
from edgeprune.channels.reconstruct import elimination, readers
from edgeprune.channels.reconstruct.elimination import Reader, eliminate

BOTH = pytest.mark.parametrize("K", [keras, tf_keras], ids=["keras", "tf_keras"])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def scores_of(model, x, name, **settings):
    graph = trace(model)
    (group,) = (group for group in graph.groups if group.name == name)
    return class_scores(graph, "reconstruction", x, **settings)[group.classes]


def left_over(rows, matrix, kept):
    """The mean squared error of the outputs, best computed from some of the inputs."""
    wanted = rows @ matrix
    solved = np.linalg.lstsq(rows[:, kept], wanted, rcond=None)[0]
    return np.square(wanted - rows[:, kept] @ solved).sum() / len(rows)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=2, max_size=5),
    st.integers(0, 2),
    st.integers(1, 4),
    st.integers(0, 10**6),
)
def test_each_step_of_the_elimination_is_the_best_by_least_squares(widths, others, outputs, seed):
    random = np.random.default_rng(seed)
    owner = random.permutation(np.repeat(np.arange(len(widths) + 1), [*widths, others]))  # the last ones stay
    rows = random.normal(size=(60, len(owner))) @ random.normal(size=(len(owner), len(owner)))
    matrix = random.normal(size=(len(owner), outputs))
    reader = Reader(rows.T @ rows / 60, matrix, owner[None])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elimination, "RIDGE", 1e-11)
        order, errors = eliminate([reader], np.arange(len(widths)))
    size, gone = np.square(rows @ matrix).sum() / 60, []
    for number, total in zip(order.tolist(), np.cumsum(errors), strict=True):
        trials = {
            one: left_over(rows, matrix, ~np.isin(owner, [*gone, one])) for one in range(len(widths)) if one not in gone
        }
        assert trials[number] == pytest.approx(min(trials.values()), abs=1e-5 * size)
        gone.append(number)
        assert total == pytest.approx(trials[number], abs=1e-5 * size)


def test_of_few_channels_those_stay_that_the_best_subset_has():
    """The three least important of six inputs of a matrix, against all subsets of three."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, name="a"), keras.layers.Dense(4)])
    randomize(model)
    kernel = normal(6, 6)
    kernel[:, 3:] = 0.1 * normal(6, 3, seed=5) + kernel[:, :3]  # three pairs that resemble one another
    model.layers[-2].kernel.assign(kernel)
    x = normal(200, 6, seed=1)
    scores = scores_of(model, x, "a")
    hidden = x @ kernel
    rows, matrix = hidden - hidden.mean(axis=0), np.asarray(model.layers[-1].kernel)
    best = min(itertools.combinations(range(6), 3), key=lambda kept: left_over(rows, matrix, list(kept)))
    chosen = sorted(np.argsort(scores)[3:].tolist())
    assert left_over(rows, matrix, chosen) <= 1.05 * left_over(rows, matrix, list(best))
    assert sorted(one % 3 for one in chosen) == [0, 1, 2]  # one of each pair


def nets(K):
    """Nets whose layer `a` has 4 channels and copies of them; what reads them is another layer in each."""
    L = K.layers

    def dense():
        x = i = K.Input((6,))
        return i, L.Dense(3)(L.Dense(8, name="a")(x))

    def convolution():
        x = i = K.Input((8, 8, 6))
        x = L.ReLU()(L.Conv2D(8, 3, padding="same", name="a")(x))
        return i, L.GlobalAveragePooling2D()(L.Conv2D(3, 3, strides=2)(x))

    def flattened():
        x = i = K.Input((4, 4, 3))
        return i, L.Dense(3)(L.Flatten()(L.Conv2D(8, 3, padding="same", name="a")(x)))

    def depthwise():
        x = i = K.Input((8, 8, 6))
        x = L.Conv2D(8, 1, name="a")(x)
        x = L.DepthwiseConv2D(3, depthwise_initializer="ones", use_bias=False)(x)
        return i, L.GlobalAveragePooling2D()(L.Conv2D(3, 1)(L.ReLU()(x)))

    def concatenated():
        x = i = K.Input((8, 8, 6))
        x = L.Concatenate()([L.Conv2D(2, 1)(x), L.Conv2D(8, 3, padding="same", name="a")(x)])
        return i, L.GlobalAveragePooling2D()(L.Conv2D(3, 1)(x))

    def several():
        i = K.Input((8, 8, 6))
        x = L.Conv2D(8, 1, name="a")(i)
        return i, L.Add()([L.Conv2D(3, 3, padding="same")(x), L.Conv2D(3, 1)(x)])

    def one_dimension():
        x = i = K.Input((12, 3))
        return i, L.GlobalAveragePooling1D()(L.Conv1D(3, 3)(L.Conv1D(8, 3, name="a")(x)))

    def recurrent():
        x = i = K.Input((5, 6))
        return i, L.Dense(2)(L.GRU(4)(L.Dense(8, name="a")(x)))

    made = (dense, convolution, flattened, depthwise, concatenated, several, one_dimension, recurrent)
    return {one.__name__: one for one in made}


def test_of_many_channels_some_are_removed_at_once_as_one_by_one(monkeypatch):
    """One reader with two inputs a class and one with one; half of the classes are mixtures of the others."""
    random = np.random.default_rng(0)
    classes = np.arange(40)

    def reader(width):
        owner = np.repeat(classes, width)
        rows = random.normal(size=(500, 20 * width)) @ random.normal(size=(20 * width, 40 * width))
        rows += 0.1 * random.normal(size=rows.shape)
        return Reader(rows.T @ rows / 500, random.normal(size=(40 * width, 6)), owner[None])

    both = [reader(2), reader(1)]
    order, errors = eliminate(both, classes)  # fewer than LOOKED_AT: all are looked at for each
    assert sorted(order) == list(classes)
    monkeypatch.setattr(elimination, "AT_ONCE", 3)
    monkeypatch.setattr(elimination, "LOOKED_AT", 16)
    again, their_errors = eliminate(both, classes)
    assert sorted(again) == list(classes)
    np.testing.assert_allclose(np.cumsum(their_errors)[[19, 39]], np.cumsum(errors)[[19, 39]], rtol=0.02)
    assert len(set(order[:20]) & set(again[:20])) >= 18


@BOTH
@pytest.mark.parametrize("name", nets(keras))
def test_copies_of_channels_go_first_whatever_reads_them(K, name):
    K.utils.set_random_seed(0)
    i, output = nets(K)[name]()
    model = K.Model(i, output)
    kernel, bias = model.get_layer("a").weights[:2]
    values = normal(*kernel.shape)
    values[..., 4:] = values[..., :4]
    kernel.assign(values)
    bias.assign(np.tile(normal(4, seed=1), 2))
    scores = scores_of(model, normal(300, *model.input_shape[1:]), "a")
    first = np.argsort(scores)[:4]
    assert sorted(first % 4) == [0, 1, 2, 3]  # one of each pair
    assert scores[first].max() < 0.2 * np.sort(scores)[4]


def test_a_layer_with_more_inputs_than_moments_can_hold_scores_each_channel_alone(monkeypatch):
    i, output = nets(keras)["flattened"]()
    model = randomize(keras.Model(i, output))
    x = normal(50, 4, 4, 3)
    monkeypatch.setattr(readers, "MOST_INPUTS", 20)
    scores = scores_of(model, x, "a")
    hidden = keras.Model(i, model.get_layer("a").output).predict(x, verbose=0)
    kernel = np.asarray(model.layers[-1].kernel).reshape(4, 4, 8, 3)
    each = np.einsum("nhwc,hwco->cno", hidden, kernel)
    expected = readers.OUTPUT_WORTH * each.var(axis=1).sum(axis=1) / each.sum(axis=0).var(axis=0).sum()
    np.testing.assert_allclose(scores, expected, rtol=1e-3)


def test_attention_is_measured_inside():
    L = keras.layers
    i = keras.Input((6, 8))
    x = L.MultiHeadAttention(4, 4, name="attention")(i, i)
    model = randomize(keras.Model(i, L.Dense(2)(x)))
    kernel = np.asarray(model.get_layer("attention").weights[6]).copy()
    kernel[2] *= 1e-3  # what reads the third head
    model.get_layer("attention").weights[6].assign(kernel)
    x = normal(30, 6, 8)
    heads = ep.plan_channels(model, pruning_ratio=0.25, importance="reconstruction", data=x)
    assert heads.kept_mask[heads.groups[0].classes].tolist() == [True, True, False, True]
    inside = ep.plan_channels(model, pruning_ratio=0.25, importance="reconstruction", data=x, attention="dims")
    # Of the query and the key nothing is known but by their product.
    assert "reconstruction has no scores" in " ".join(inside.frozen.values())
    assert inside.channels.after < inside.channels.before


def test_errors_are_divided_by_what_a_channel_costs():
    def net(first=8, second=6):
        x = i = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(first, 3, name="first")(x)
        x = keras.layers.Conv2D(second, 3, strides=2, name="second")(x)
        return keras.Model(i, keras.layers.Dense(2)(keras.layers.Flatten()(x)))

    graph = trace(net())
    ones = np.ones(graph.class_count)
    smaller = {"first": net(first=7), "second": net(second=5)}
    amounts = {
        "target_macs": lambda model: ep.count_macs(model).total,
        "target_params": lambda model: model.count_params(),
        "pruning_ratio": lambda model: sum(layer.filters for layer in model.layers if hasattr(layer, "filters")),
    }
    for kind, amount in amounts.items():
        scores = per_cost(graph, ones, kind)
        for group in graph.groups:
            if group.frozen is None:
                saved = amount(graph.model) - amount(smaller[group.name])
                np.testing.assert_allclose(scores[group.classes], 1 / saved)


@BOTH
def test_a_training_masks_what_the_others_explain(K):
    L = K.layers
    model = randomize(K.Sequential([K.Input((6,)), L.Dense(8, name="a"), L.Dense(2)]))
    x = normal(64, 6)
    model.compile("sgd", "mse")
    pruning = ep.ChannelPruning(
        ep.ConstantSparsity(0.5, 2, frequency=1), pruning_ratio=0.5, importance="reconstruction", data=x
    )
    model.fit(x, normal(64, 2), epochs=2, callbacks=[pruning], verbose=0)
    assert pruning.plan.channels.after == 4
    assert ep.strip_pruning(model).get_layer("a").units == 4


def test_the_same_seed_gives_the_same_scores_and_the_model_stays():
    L = keras.layers
    model = randomize(keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(6, 3, name="a"), L.Conv2D(2, 1)]))
    before = [np.asarray(weight).copy() for weight in model.weights]
    x = normal(20, 8, 8, 3)
    first, second = (scores_of(model, x, "a", seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(weight))


def test_missing_or_unfit_data_and_a_reduction_are_refused():
    model = randomize(keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dense(2)]))
    with pytest.raises(ValueError, match="pass data=, samples without labels"):
        ep.plan_channels(model, pruning_ratio=0.5, importance="reconstruction")
    with pytest.raises(ValueError, match="importance is 'reconstruction': leave it out"):
        ep.plan_channels(model, pruning_ratio=0.5, importance="reconstruction", data=normal(8, 6), reduction="max")
    with pytest.raises(ValueError, match="reads is NaN or infinite"):
        ep.plan_channels(model, pruning_ratio=0.5, importance="reconstruction", data=np.full((8, 6), np.nan))
    with pytest.raises(ValueError, match="no batches|no samples|empty"):
        ep.plan_channels(model, pruning_ratio=0.5, importance="reconstruction", data=normal(0, 6))


def test_moments_of_few_rows_are_shrunk_so_that_the_choice_holds_on_others():
    def error_on_others(seed, shrinks):
        random = np.random.default_rng(seed)
        mixing, scales, matrix = (
            random.normal(size=(10, 60)),
            np.exp(random.normal(size=60)),
            random.normal(size=(60, 8)),
        )

        def rows(count):
            latent = random.normal(size=(count, 10)) @ mixing / 3
            return np.maximum(latent + 0.5 * random.normal(size=(count, 60)), 0) * scales

        few, many = rows(15), rows(1000)
        moments = np.cov(few.T, bias=True)
        reader = Reader(readers.shrunk(moments, 15) if shrinks else moments, matrix, np.arange(60)[None])
        order, _ = eliminate([reader], np.arange(60))
        return left_over(many - many.mean(axis=0), matrix, np.isin(np.arange(60), order[30:]))

    plain, shrunk = (sum(error_on_others(seed, shrinks) for seed in range(6)) for shrinks in (False, True))
    assert shrunk < 0.8 * plain
    assert readers.shrunk(np.eye(4), 3) == pytest.approx(np.eye(4))
