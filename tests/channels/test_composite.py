"""Composite layers of Keras 3: what they compute is followed inside, with the weights that they use themselves."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers, ops
from nets.cuts import halved, randomize
from nets.pieces import between_dense_layers
from nets.samples import numbers

import edgeprune as ep
from edgeprune.channels.graph.trace import trace

STEPS, WIDTH = 3, 4


class Step(layers.Layer):
    """One of the things that blocks do with a weight of their own, or with shapes; `(batch, n, 4)` both ways."""

    def __init__(self, kind, settings=None, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.settings = kind, settings or {}
        self.first = layers.Dense(2 * WIDTH, name="first")
        self.last = layers.Dense(WIDTH, name="last")

    def build(self, shape):
        sizes = {
            "vector": (2 * WIDTH,),
            "gain": (2 * WIDTH,),
            "unused": (2 * WIDTH,),
            "positions": (shape[1], 2 * WIDTH),
            "joined": (shape[1], 2),
            "product": (2 * WIDTH, 2 * WIDTH),
        }
        size = sizes.get(self.kind, (1, 1, 2 * WIDTH))
        if self.kind not in ("reshaped", "heads"):
            self.own = self.add_weight(shape=size, name="own", initializer="random_normal", **self.settings)
        self.first.build(shape)
        width = 2 * WIDTH + 2 * (self.kind == "joined")
        self.last.build((*shape[:-1], width))
        self.built = True

    def call(self, x):
        hidden = self.first(x)
        batch = ops.shape(x)[0]
        if self.kind in ("vector", "positions"):
            hidden = hidden + self.own
        elif self.kind == "gain":
            hidden = hidden * self.own
        elif self.kind == "product":
            hidden = ops.matmul(hidden, self.own)
        elif self.kind == "joined":
            own = ops.broadcast_to(self.own, (batch, *self.own.shape))
            hidden = ops.concatenate([hidden, own], axis=-1)
        elif self.kind == "tiled":
            hidden = ops.concatenate([ops.tile(self.own, (batch, 1, 1)), hidden], axis=1)[:, 1:] + self.own
        elif self.kind == "broadcast":
            hidden = ops.concatenate([ops.broadcast_to(self.own, (batch, 1, 2 * WIDTH)), hidden], axis=1)[:, :-1]
        elif self.kind == "repeated":
            hidden = ops.concatenate([ops.repeat(self.own, batch, axis=0), hidden], axis=1)[:, :-1]
        elif self.kind == "reshaped":
            hidden = ops.reshape(ops.reshape(hidden, (batch, -1)), (batch, -1, 2 * WIDTH))
        elif self.kind == "heads":
            split = ops.transpose(ops.reshape(hidden, (batch, -1, 2, WIDTH)), (0, 2, 1, 3))
            scores = ops.softmax(ops.matmul(split, ops.transpose(split, (0, 1, 3, 2))) / 2.0)
            hidden = ops.reshape(ops.transpose(ops.matmul(scores, split), (0, 2, 1, 3)), (batch, -1, 2 * WIDTH))
        return x + self.last(ops.relu(hidden))


class Chain(layers.Layer):
    """Layers one after the other."""

    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = parts

    def build(self, shape):
        for part in self.parts:
            part.build(shape)
            shape = (*shape[:-1], getattr(part, "units", shape[-1]))
        self.built = True

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


KINDS = (
    *("vector", "gain", "unused", "positions", "joined", "product"),
    *("tiled", "broadcast", "repeated", "reshaped", "heads"),
)


def net(*parts, nested=False):
    return randomize(between_dense_layers(keras, (STEPS, 5), WIDTH, parts, nested))


def inputs(batch):
    return numbers(batch, STEPS, 5)


def check_unfolded(model):
    """What was walked computes what the model does, for batches of any size; returns the graph."""
    graph = trace(model)
    assert not graph.not_followed
    for batch in (1, 2, WIDTH, 2 * WIDTH):
        x = inputs(batch)
        np.testing.assert_allclose(graph.walked(x), model(x), rtol=1e-5, atol=1e-6)
    return graph


@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    chained=st.booleans(),
    nested=st.booleans(),
    twice=st.booleans(),
)
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_blocks_are_unfolded_equal_and_lose_half(kinds, chained, nested, twice):
    parts = [Step(kind, name=f"{kind}_{number}") for number, kind in enumerate(kinds)]
    parts = [Chain(parts, name="chain")] if chained else parts
    model = net(*parts, *parts[: int(twice)], nested=nested)
    check_unfolded(model)
    _, smaller, proof = halved(model)
    assert proof.passed, proof
    assert smaller.count_params() < model.count_params()


@pytest.fixture(scope="module")
def halves():
    """For each kind a model with it and the plan and the smaller model with half of its channels."""
    found = {}
    for kind in KINDS:
        model = net(Step(kind, name="block"))
        plan = ep.plan_channels(model, pruning_ratio=0.5, scope="local")
        found[kind] = model, plan, plan.apply()
    return found


def test_files_load_without_this_package(halves, tmp_path, elsewhere):
    x = inputs(3)
    for kind, (_, _, smaller) in halves.items():
        smaller.save(tmp_path / f"{kind}.keras")
        loaded = elsewhere.outputs("keras", tmp_path / f"{kind}.keras", x)
        np.testing.assert_allclose(loaded, smaller(x), rtol=1e-5, atol=1e-6)


def own_weights_of(smaller):
    return [layer for layer in smaller.layers if layer.name.startswith("block_own")]


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_in_what_reads_the_channels_give_the_same(halves, kind):
    """The whole model called at once, with zeros in its own weights where they read what went."""
    model, plan, smaller = halves[kind]
    assert plan.verify().passed and plan.channels.after < plan.channels.before
    x = inputs(3)
    before = model.get_weights()
    for slot in plan.graph.slots:
        if slot.reads or slot.name == "own":  # one that is multiplied by a matrix of its own is read by that
            values = np.array(slot.weight)
            values[(slice(None),) * slot.axis + (~plan.kept_mask[slot.classes],)] = 0
            slot.weight.assign(values)
    expected = np.asarray(model(x))
    model.set_weights(before)
    np.testing.assert_allclose(smaller(x), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("unused", "reshaped", "heads")])
def test_own_weights_are_cut_and_trained(halves, kind):
    model, _, smaller = halves[kind]
    (own,) = own_weights_of(smaller)
    assert own.trainable and own.count_params() <= model.get_layer("block").own.shape.num_elements()
    before = np.array(own.kernel)
    smaller.compile(keras.optimizers.SGD(0.1), "mse")
    smaller.fit(inputs(4), np.ones((4, STEPS, 2)), epochs=1, verbose=0)
    assert (np.array(own.kernel) != before).any()


def test_an_unfolding_that_is_not_equal_fails_the_proof():
    """The layer computes something else when it is called on numbers than when it is looked into."""

    class Deceiving(Step):
        def call(self, x):
            return super().call(x) * (1.0 if isinstance(x, keras.KerasTensor) else 2.0)

    _, _, proof = halved(net(Deceiving("vector", name="block")))
    assert not proof.passed


def pair(**settings):
    """Two blocks with weights of their own, named alike inside."""
    return net(Step("gain", settings, name="one"), Step("vector", settings, name="two"))


def test_path_names_choose_what_stays_and_what_goes():
    model = pair()
    by_name = ep.plan_channels(model, pruning_ratio=0.5, ignore="one/first")
    by_layer = ep.plan_channels(model, pruning_ratio=0.5, ignore=[model.get_layer("one").first])
    assert (by_name.kept_mask == by_layer.kept_mask).all() and by_name.frozen["one/first"] == "ignored"
    assert "two/first" not in by_name.frozen
    plan = ep.plan_channels(model, ratios={"one/first": 0.25, "t?o/fir*": 0.5})
    assert {row.name: row.after for row in plan.planned} == {"stem": 4, "one/first": 6, "two/first": 4}
    assert [layer.name for layer in plan.apply().layers if "first" in layer.name] == ["one_first", "two_first"]


def test_a_plan_is_read_back_and_importance_is_measured_on_data():
    model = pair()
    model.compile("sgd", "mse")
    plan = ep.plan_channels(model, pruning_ratio=0.5, importance="taylor", data=(inputs(4), np.ones((4, STEPS, 2))))
    assert list(plan.frozen) == ["head"]
    again = ep.ChannelPlan.from_json(model, plan.to_json())
    assert (again.kept_mask == plan.kept_mask).all()
    np.testing.assert_array_equal(again.apply()(inputs(2)).shape, (2, STEPS, 2))


def test_channels_are_masked_in_training_and_taken_out():
    model = pair()
    model.compile("sgd", "mse")
    masking = ep.ChannelPruning(ep.PolynomialDecay(0.0, 0.5, 0, 4, frequency=1), pruning_ratio=0.5)
    model.fit(inputs(8), np.ones((8, STEPS, 2)), batch_size=2, epochs=2, callbacks=[masking], verbose=0)
    x = inputs(3)
    smaller = ep.strip_pruning(model)
    np.testing.assert_allclose(smaller(x), model(x), rtol=1e-4, atol=1e-5)
    assert smaller.count_params() < model.count_params()
    assert all(type(layer).__module__.startswith("keras.") for layer in smaller.layers)


def test_channels_that_an_own_weight_makes_zero_are_dead():
    block = Step("gain", name="block")
    model = net(block)
    block.own.assign(np.where(np.arange(2 * WIDTH) % 4 == 1, 0, np.array(block.own)))
    smaller = ep.remove_dead_channels(model)
    assert smaller.get_layer("block_first").units == 2 * WIDTH - 2
    x = inputs(3)
    np.testing.assert_allclose(smaller(x), model(x), rtol=1e-5, atol=1e-6)


def test_frozen_and_regularized_weights_stay_so():
    model = pair(regularizer="l2")
    model.get_layer("one").trainable = False
    smaller = ep.prune_channels(model, pruning_ratio=0.5)
    assert {layer.name for layer in smaller.layers if layer.weights and not layer.trainable} == {
        *("one_own", "one_first", "one_last")
    }
    assert len(smaller.losses) == len(model.losses) == 1
    assert smaller.get_layer("two_own").kernel.regularizer is not None


def test_masks_pass_through():
    class Masked(Chain):
        def call(self, x, mask=None):
            return super().call(x) * ops.cast(mask, x.dtype)[:, :, None]

    steps = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(5, WIDTH, mask_zero=True, name="words")(steps)
    for part in (Step("gain", name="plain"), Masked([layers.Dense(WIDTH, name="inner")], name="masked")):
        part.supports_masking = True
        x = part(x)
    model = randomize(keras.Model(steps, layers.Dense(2, name="head")(layers.LSTM(6, name="lstm")(x))))
    graph, smaller, proof = halved(model)
    assert proof.passed and not graph.not_followed
    sentences = np.array([[1, 2, 0], [3, 0, 0], [1, 1, 1]])
    np.testing.assert_allclose(graph.walked(sentences), model(sentences), rtol=1e-5, atol=1e-6)
    assert np.abs(smaller(sentences)[1] - smaller(np.array([[3, 1, 1]]))[0]).max() > 0, "the mask counts"


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = pair()
    finally:
        keras.config.set_dtype_policy("float32")
    plan = ep.plan_channels(model, pruning_ratio=0.5)
    smaller = plan.apply()
    own = smaller.get_layer("one_own")
    assert plan.verify().passed and own.dtype_policy.name == "mixed_float16" and own.kernel.dtype == "float32"


@pytest.mark.parametrize("dtype", ["bool", "string", "int32"])
def test_the_first_input_may_be_no_number(dtype):
    class Conditioned(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.look = layers.StringLookup(vocabulary=["a", "b"], name="look")
            self.last = layers.Dense(WIDTH, name="last")

        def build(self, first_shape, x_shape):
            self.own = self.add_weight(shape=(1, 1, WIDTH), name="own", initializer="ones")
            self.last.build((*x_shape[:-1], WIDTH))
            self.built = True

        def call(self, first, x):
            number = self.look(first) if dtype == "string" else first
            token = ops.broadcast_to(self.own, (ops.shape(x)[0], 1, WIDTH))
            x = ops.concatenate([token, x], axis=1)[:, 1:] * self.own
            return self.last(x * ops.cast(number, x.dtype)[:, None, None])

    first, i = keras.Input((), dtype=dtype), keras.Input((STEPS, 5))
    x = Conditioned(name="block")(first, layers.Dense(WIDTH, name="stem")(i))
    model = randomize(keras.Model([first, i], layers.Dense(2, name="head")(x)))
    graph, smaller, proof = halved(model)
    assert proof.passed and not graph.not_followed
    own = smaller.get_layer("block_own")
    assert own.count_params() == WIDTH // 2
    given = ops.convert_to_tensor({"bool": [True, False], "string": ["a", "b"], "int32": [1, 2]}[dtype])
    assert np.isfinite(smaller([given, ops.convert_to_tensor(inputs(2))])).all()


def test_whole_numbers_of_ones_own():
    class Shuffled(Chain):
        def build(self, shape):
            self.order = self.add_weight(shape=(WIDTH,), dtype="int32", initializer="zeros", trainable=False)
            super().build(shape)

        def call(self, x):
            return ops.take(super().call(x), self.order, axis=-1)

    block = Shuffled([layers.Dense(2 * WIDTH, name="wide"), layers.Dense(WIDTH, name="inner")], name="block")
    model = net(block)
    block.order.assign(np.arange(WIDTH)[::-1].copy())
    graph, smaller, proof = halved(model)
    assert proof.passed and "indexes them" in graph.frozen["block/inner"]
    assert smaller.get_layer("block_wide").units == WIDTH


def test_joined_names_that_are_the_same(tmp_path):
    parts = [Chain([Step("gain", name="b_c")], name="a"), Chain([Step("gain", name="c")], name="a_b")]
    model = net(*parts, layers.Dense(WIDTH, name="a_b_c_first"))
    plan = ep.plan_channels(model, pruning_ratio=0.5)
    assert [row.name for row in plan.planned] == ["stem", "a/b_c/first", "a_b/c/first", "a_b_c_first"]
    smaller = plan.apply()
    assert smaller.get_layer("a_b_c_first").units == plan.planned[0].after, "the user's own layer keeps its name"
    smaller.save(tmp_path / "m.keras")
    x = inputs(2)
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "m.keras")(x), smaller(x), rtol=1e-5, atol=1e-6)


class Adding(Chain):
    """A loss of its own."""

    def call(self, x):
        x = super().call(x)
        self.add_loss(ops.mean(x))
        return x


def test_a_layer_that_adds_a_loss_is_left_whole():
    model = net(Adding([layers.Dense(WIDTH, name="inner")], name="block"), layers.Dense(6, name="after"))
    graph, smaller, proof = halved(model)
    assert proof.passed and "adds a loss of its own" in graph.frozen["block"]
    smaller(inputs(2))
    assert len(smaller.losses) == 1


def test_a_model_is_left_as_it_is():
    """Its weights, names and graph, and the losses that its layers hold of their last call."""
    quiet = layers.Dense(WIDTH, activity_regularizer="l2", name="quiet")
    model = net(Step("joined", name="one"), Chain([quiet], name="two"), Adding([layers.Dense(WIDTH)], name="three"))

    def state():
        parts = list(model._flatten_layers())
        held = [(part.name, len(part._inbound_nodes), len(part._outbound_nodes), sorted(vars(part))) for part in parts]
        return held, [np.array(one) for one in model.weights], [weight.path for weight in model.weights]

    model(inputs(2))
    losses, (held, values, paths) = list(map(float, model.losses)), state()
    for _ in range(2):
        ep.plan_channels(model, pruning_ratio=0.5).apply()
    now, new_values, new_paths = state()
    assert (now, new_paths) == (held, paths) and len(losses) == 2
    assert all((a == b).all() for a, b in zip(values, new_values, strict=True))
    assert list(map(float, model.losses)) == losses


class OnEachStep(Chain):
    """As Keras asks of what stands in `TimeDistributed`."""

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.parametrize("inside", ["composite", "model", "both"])
def test_on_each_step(inside, tmp_path):
    """Composite layers in `TimeDistributed`, and in models in it."""
    block = OnEachStep([Step("positions", name="step")], name="block")
    wrap = layers.TimeDistributed
    if inside != "composite":
        i = keras.Input((STEPS, WIDTH))
        block = keras.Model(i, block(layers.Dense(WIDTH, name="wide")(i)), name="each")
    film = keras.Input((2, 2, STEPS, 5) if inside == "both" else (2, STEPS, 5))
    wrapped = wrap(wrap(block), name="outer") if inside == "both" else wrap(block, name="outer")
    x = wrapped(layers.Dense(WIDTH, name="stem")(film))
    model = randomize(keras.Model(film, layers.Dense(2, name="head")(x)))
    block.trainable = False
    graph, smaller, proof = halved(model)
    assert proof.passed and not graph.not_followed
    name = next(
        row.name for row in ep.plan_channels(model, pruning_ratio=0.5).planned if row.name.endswith("step/first")
    )
    assert name.startswith("outer/") and "block/" in name
    inner = smaller.get_layer("outer")
    while isinstance(inner, layers.TimeDistributed):
        inner = inner.layer
    assert next(one for one in inner.layers if one.name.endswith("first")).units == WIDTH
    assert len(smaller.trainable_weights) == 4 and smaller.count_params() < model.count_params()
    smaller.save(tmp_path / "m.keras")
    x = numbers(2, *film.shape[1:])
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "m.keras")(x), smaller(x), rtol=1e-5, atol=1e-6)
