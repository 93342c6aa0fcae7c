"""One-shot pruning: TF-MOT's own masks, exact zeros, never worse than the masks, exact where nothing is lost."""

import keras
import numpy as np
import pytest
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st
from nets.cuts import randomize

import edgeprune as ep
from edgeprune import flavor as flavors

BOTH = pytest.mark.parametrize("K", [keras, tf_keras], ids=["keras", "tf_keras"])
FEW = pytest.mark.filterwarnings("ignore:There are fewer samples")


def samples(count=40, shape=(6, 6, 3), seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def kernels(model):
    """The prunable weights by path name."""
    rows = (row for row in ep.sparsity_report(model).rows if row.weight)
    layers = {name: layer for layer, name in ((one, flavors.layer_names(model)[id(one)]) for one in model.layers)}
    return {f"{row.layer}/{row.weight}": np.asarray(getattr(layers[row.layer], row.weight)) for row in rows}


def convolutions(K, seed=0):
    L = K.layers
    x = i = K.Input((6, 6, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False, name="a")(x)))
    y = L.Conv2D(8, 1, name="b")(x)
    x = L.Add()([x, L.Conv2D(8, 3, padding="same", activation="relu", name="c")(y)])
    x = L.Flatten()(L.DepthwiseConv2D(3, name="depthwise")(x))
    return randomize(K.Model(i, L.Dense(4, name="head")(x)), seed)


@pytest.mark.parametrize("settings", [{"sparsity": 0.7}, {"sparsity_m_by_n": (2, 4)}], ids=str)
def test_without_data_the_zeros_are_those_of_tfmot(settings):
    tfmot = flavors.import_tfmot()
    model = convolutions(tf_keras)
    schedule = tfmot.sparsity.keras.ConstantSparsity(settings.get("sparsity", 0.5), 0, frequency=1)
    m_by_n = {"sparsity_m_by_n": settings["sparsity_m_by_n"]} if "sparsity_m_by_n" in settings else {}
    theirs = tfmot.sparsity.keras.prune_low_magnitude(model, schedule, **m_by_n)
    theirs.compile(tf_keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    theirs.fit(samples(4), np.zeros((4, 4)), verbose=0, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
    theirs = tfmot.sparsity.keras.strip_pruning(theirs)
    ours = ep.prune_weights(convolutions(tf_keras), **settings)
    assert list(kernels(ours)) == ["a/kernel", "b/kernel", "c/kernel", "head/kernel"]
    for name, kernel in kernels(ours).items():
        np.testing.assert_array_equal(kernel, kernels(theirs)[name])


@pytest.mark.parametrize(
    "settings",
    [{"scope": "global"}, {"block_size": (2, 2), "layers": "head"}, {"block_size": (4, 1), "layers": "head"}],
)
def test_scopes_and_blocks_are_those_of_prune_low_magnitude(settings):
    trained = ep.prune_low_magnitude(convolutions(keras), ep.ConstantSparsity(0.6, 0, frequency=1), **settings)
    trained.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    trained.fit(samples(4), np.zeros((4, 4)), verbose=0, callbacks=[ep.UpdatePruningStep()])
    ours = kernels(ep.prune_weights(convolutions(keras), 0.6, **settings))
    for name, kernel in kernels(ep.strip_pruning(trained)).items():
        np.testing.assert_array_equal(ours[name], kernel)


@FEW
@pytest.mark.parametrize(
    "K, settings", [(keras, {"sparsity": 0.5}), (tf_keras, {"sparsity_m_by_n": (2, 4)})], ids=["keras", "tf_keras"]
)
def test_zeros_are_as_many_on_data_and_the_error_falls(K, settings):
    model = convolutions(K)
    before = [np.asarray(weight).copy() for weight in model.weights]
    plan = ep.plan_weights(model, **settings)
    found = plan.reconstruct(samples(80))
    assert found.after < 0.9 * found.before
    assert not found.unsolved
    assert {"a", "b", "c", "head", "depthwise"} >= {layer.name for layer in found.layers} >= {"a", "b", "c", "head"}
    for name, mask in plan.masks.items():
        zeros = kernels(found.model)[name] == 0
        assert zeros.sum() == (~mask).sum()
        if "sparsity_m_by_n" in settings:  # position by position: along the inputs, whole groups of four
            by_output = np.moveaxis(zeros, -1, 0).reshape(-1, zeros.shape[-2])
            for row in by_output:
                for start in range(0, len(row) // 4 * 4, 4):
                    assert row[start : start + 4].sum() == 2
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(weight))
    wanted, given = (one.predict(samples(80), verbose=0) for one in (model, found.model))
    assert np.linalg.norm(wanted - given) / np.linalg.norm(wanted - wanted.mean(0)) == pytest.approx(
        found.after, rel=1e-3
    )
    assert type(found.model) is type(model) and [one.name for one in found.model.layers] == [
        one.name for one in model.layers
    ]


@FEW
@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.95), st.sampled_from([None, (1, 4), (3, 8)]), st.integers(1, 30))
def test_no_layer_and_no_output_is_worse_than_with_the_masks(seed, sparsity, m_by_n, count):
    rng, L = np.random.default_rng(seed), keras.layers
    x = i = keras.Input((5, 5, 2))
    for width in rng.integers(1, 9, size=rng.integers(1, 4)):
        y = L.Conv2D(int(width), int(rng.integers(1, 4)), padding="same", use_bias=bool(rng.integers(2)))(x)
        y = L.BatchNormalization()(y) if rng.integers(2) else y
        x = L.ReLU()(y)
        if rng.integers(2):
            x = L.Concatenate()([x, L.Conv2D(3, 1, activation="tanh")(y)])
    model = randomize(keras.Model(i, L.Dense(3, activation="softmax")(L.Flatten()(x))), seed)
    plan = ep.plan_weights(model, **({"sparsity": sparsity} if m_by_n is None else {"sparsity_m_by_n": m_by_n}))
    found = plan.reconstruct(samples(count, (5, 5, 2), seed))
    assert found.after <= found.before
    assert all(layer.after <= layer.before for layer in found.layers)
    for name, mask in plan.masks.items():
        assert (kernels(found.model)[name] == 0).sum() >= (~mask).sum()


@BOTH
def test_what_the_other_inputs_can_make_up_for_is_lost_without_a_trace(K):
    """Every input is there twice: with a half of the weights the output is what it was."""
    L = K.layers
    i = K.Input((6,))
    x = L.Dense(6, name="inner")(L.Concatenate()([i, i]))
    model = randomize(K.Model(i, L.Dense(2, name="head")(x)))
    found = ep.plan_weights(model, {"inner": 0.5}).reconstruct(samples(80, (6,)))
    assert found.before > 0.1
    assert found.after < 1e-4
    fresh = samples(9, (6,), seed=7)
    np.testing.assert_allclose(found.model.predict(fresh, verbose=0), model.predict(fresh, verbose=0), atol=1e-3)


def test_sparsity_zero_is_a_copy():
    model = convolutions(keras)
    found = ep.plan_weights(model, 0.0).reconstruct(samples(8))
    assert (found.before, found.after, found.layers) == (0.0, 0.0, ())
    for old, new in zip(model.weights, found.model.weights, strict=True):
        assert old is not new
        np.testing.assert_array_equal(np.asarray(old), np.asarray(new))


@BOTH
def test_a_shared_and_nested_tower_is_solved_once_for_all_its_uses(K):
    L = K.layers
    i = K.Input((8,))
    tower = K.Model(i, L.Dense(8, name="second")(L.Dense(12, activation="relu", name="first")(i)), name="tower")
    a, b = K.Input((8,), name="p"), K.Input((8,), name="q")
    model = randomize(K.Model([a, b], L.Dense(2, name="head")(L.Concatenate()([tower(a), tower(b)]))))
    x = {name: samples(60, (8,), seed) for seed, name in enumerate("pq")}
    found = ep.plan_weights(model, 0.5, ignore="head").reconstruct(x)
    assert {layer.name: layer.rows for layer in found.layers} == {"tower/first": 120, "tower/second": 120, "head": 60}
    assert found.after < found.before
    inner = found.model.get_layer("tower")
    assert [(np.asarray(inner.get_layer(name).kernel) == 0).mean() for name in ("first", "second")] == [0.5, 0.5]
    assert (np.asarray(found.model.get_layer("head").kernel) != 0).all()


@BOTH
def test_what_cannot_be_solved_is_pruned_by_magnitude_and_named(K):
    L = K.layers
    i = K.Input((5,), dtype="int32")
    x = L.GRU(6, reset_after=False, name="gru")(L.Embedding(12, 8, name="words")(i))
    model = randomize(K.Model(i, L.Dense(3, name="head")(x)))
    plan = ep.plan_weights(model, 0.5)
    tokens = np.random.default_rng(0).integers(0, 12, (50, 5)).astype(np.int32)
    found = plan.reconstruct(tokens)
    assert found.after < found.before
    assert {name.rpartition("/")[2] for name in found.unsolved} == {"embeddings", "recurrent_kernel"}
    assert {"gru", "head"} == {layer.name for layer in found.layers}
    gru = found.model.get_layer("gru").cell
    for name, values in (
        ("words/embeddings", found.model.get_layer("words").embeddings),
        (next(one for one in plan.masks if one.endswith("recurrent_kernel")), gru.recurrent_kernel),
    ):
        np.testing.assert_array_equal(np.asarray(values) != 0, plan.masks[name])
    assert (np.asarray(gru.kernel) == 0).mean() == 0.5


@BOTH
def test_kernels_that_read_states_are_solved(K):
    i = K.Input((6, 5))
    model = randomize(K.Model(i, K.layers.Dense(3, name="head")(K.layers.LSTM(8, name="lstm")(i))))
    found = ep.plan_weights(model, 0.5).reconstruct(samples(200, (6, 5)))
    assert not found.unsolved
    (recurrent,) = [layer for layer in found.layers if layer.name.endswith("recurrent_kernel")]
    assert recurrent.after < recurrent.before
    assert (np.asarray(found.model.get_layer("lstm").cell.recurrent_kernel) == 0).mean() == 0.5


def test_attention_is_solved_inside():
    L = keras.layers
    i = keras.Input((6, 8))
    model = randomize(keras.Model(i, L.Dense(2, name="head")(L.MultiHeadAttention(2, 4, name="attention")(i, i))))
    found = ep.plan_weights(model, 0.5).reconstruct(samples(80, (6, 8)))
    assert not found.unsolved
    assert {f"attention/{name}" for name in ("query", "key", "value", "attention_output")} | {"head"} == {
        layer.name for layer in found.layers
    }
    assert found.after < 0.9 * found.before
    assert ep.sparsity_report(found.model).sparsity == 0.5


class Gate(keras.layers.Layer):
    """A layer of a user's own, with a layer inside it and a weight that it uses itself."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(8, name="dense")

    def build(self, shape):
        self.dense.build(shape)
        self.gain = self.add_weight(shape=(8,), name="gain", initializer="ones")

    def call(self, x):
        return self.dense(x) * self.gain

    def get_prunable_weights(self):
        return [self.gain]


def test_a_composite_layer_keeps_its_class_and_its_own_weights_are_pruned():
    i = keras.Input((6,))
    model = randomize(keras.Model(i, keras.layers.Dense(2, name="head")(Gate(name="gate")(i))))
    plan = ep.plan_weights(model, 0.5)
    assert sorted(plan.masks) == ["gate/dense/kernel", "gate/weight_0", "head/kernel"]
    found = plan.reconstruct(samples(60, (6,)))
    gate = found.model.get_layer("gate")
    assert type(gate) is Gate
    np.testing.assert_array_equal(np.asarray(gate.gain) != 0, plan.masks["gate/weight_0"])
    assert (np.asarray(gate.dense.kernel) == 0).mean() == 0.5
    wanted, given = (one.predict(samples(60, (6,)), verbose=0) for one in (model, found.model))
    assert np.linalg.norm(wanted - given) / np.linalg.norm(wanted - wanted.mean(0)) == pytest.approx(
        found.after, rel=1e-3
    )


def test_a_subclassed_model_becomes_functional():
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.a, self.b = keras.layers.Dense(8, activation="relu"), keras.layers.Dense(2)

        def call(self, x):
            return self.b(self.a(x))

    model = Net()
    model(samples(2, (6,)))
    found = ep.plan_weights(randomize(model), 0.5).reconstruct(samples(60, (6,)))
    assert found.after < found.before
    assert ep.sparsity_report(found.model).sparsity == 0.5


@BOTH
def test_mixed_precision_has_exact_zeros_too(K):
    L = K.layers
    layers = [L.Dense(8, activation="relu", dtype="mixed_float16"), L.Dense(3, dtype="mixed_float16")]
    model = randomize(K.Sequential([K.Input((6,)), *layers]))
    found = ep.plan_weights(model, 0.5).reconstruct(samples(60, (6,)))
    assert found.after < found.before
    assert ep.sparsity_report(found.model).sparsity == 0.5


@BOTH
@pytest.mark.parametrize("m_by_n", [None, (2, 4)])
def test_training_goes_on_with_the_same_zeros(K, m_by_n):
    model = randomize(K.Sequential([K.Input((8,)), K.layers.Dense(8, activation="relu"), K.layers.Dense(4)]))
    amount = {"sparsity": 0.5} if m_by_n is None else {"sparsity_m_by_n": m_by_n}
    pruned = ep.prune_weights(model, **amount, reconstruct=samples(60, (8,)))
    zeros = [np.asarray(layer.kernel) == 0 for layer in pruned.layers[-2:]]
    model = ep.prune_low_magnitude(pruned, ep.ConstantSparsity(0.5, 0, frequency=1), sparsity_m_by_n=m_by_n)
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(samples(20, (8,)), samples(20, (4,)), verbose=0, callbacks=[ep.UpdatePruningStep()])
    model = ep.strip_pruning(model)
    for layer, own in zip(model.layers[-2:], zeros, strict=True):
        np.testing.assert_array_equal(np.asarray(layer.kernel) == 0, own)


def test_a_plan_can_be_read():
    plan = ep.plan_weights(convolutions(keras), {"a": 0.25, "head": 0.5}, ignore=["head"])
    assert [(one.name, one.zeros) for one in plan.weights] == [("a/kernel", 54)]
    assert plan.sparsity == 0.25
    assert plan.unprunable["head"] == "ignored"
    assert "depthwise" in plan.unprunable["depthwise"] and "no pattern" in plan.unprunable["b"]
    assert "25.0%" in str(plan) and "not pruned: head (ignored)" in str(plan)
    chosen = ep.plan_weights(convolutions(keras), 0.5, layers=["a", "b"])
    assert list(chosen.masks) == ["a/kernel", "b/kernel"]
    assert "layers=" in chosen.unprunable["c"]
    assert ep.plan_weights(convolutions(keras), sparsity_m_by_n=(1, 4)).sparsity == pytest.approx(0.25, abs=0.05)


def test_bad_arguments_are_refused_in_one_sentence():
    model = convolutions(keras)
    for amount in ({}, {"sparsity": 0.5, "sparsity_m_by_n": (2, 4)}):
        with pytest.raises(ValueError, match="exactly one of sparsity and sparsity_m_by_n"):
            ep.prune_weights(model, **amount)
    with pytest.raises(ValueError, match="from 0 to below 1; got 1"):
        ep.prune_weights(model, 1)
    with pytest.raises(ValueError, match=r"sparsity\['a'\].*got -0.5"):
        ep.prune_weights(model, {"a": -0.5})
    with pytest.raises(TypeError, match="sparsity must be a number"):
        ep.prune_weights(model, "half")
    with pytest.raises(ValueError, match="names or patterns of layers as keys"):
        ep.prune_weights(model, {})
    with pytest.raises(ValueError, match="'hed', which fits the name of no layer. Did you mean 'head'"):
        ep.prune_weights(model, {"hed": 0.5})
    with pytest.raises(ValueError, match="m zeros must be fewer than n"):
        ep.prune_weights(model, sparsity_m_by_n=(4, 4))
    with pytest.raises(ValueError, match="accepts one sparsity"):
        ep.prune_weights(model, {"a": 0.5, "b": 0.6}, scope="global")
    with pytest.raises(ValueError, match="ignore|matches no layer"):
        ep.prune_weights(model, 0.5, ignore="nothing")
    with pytest.raises(ValueError, match="can be pruned. head: block_size|No layer"):
        ep.prune_weights(model, 0.5, layers="a", block_size=(2, 2))
    with pytest.raises(TypeError):
        ep.prune_weights(3, 0.5)
    with pytest.raises(ValueError, match="under pruning"):
        ep.prune_weights(ep.prune_low_magnitude(convolutions(keras)), 0.5)
    model.get_layer("a").kernel.assign(np.full((3, 3, 3, 8), np.nan))
    with pytest.raises(ValueError, match="a/kernel holds NaN"):
        ep.prune_weights(model, 0.5)


def test_bad_data_are_refused_in_one_sentence():
    plan = ep.plan_weights(randomize(keras.Sequential([keras.Input((5,)), keras.layers.Dense(8)])), 0.5)
    with pytest.raises(ValueError, match="shape"):
        plan.reconstruct(np.zeros((8, 4)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        plan.apply(reconstruct=np.full((8, 5), np.nan))
    with pytest.raises(TypeError, match="data must be"):
        plan.reconstruct(3)
    with pytest.raises(TypeError, match="seed"):
        plan.reconstruct(samples(8, (5,)), seed="x")
    with pytest.warns(UserWarning, match="fewer samples"):
        plan.reconstruct(samples(3, (5,)))
