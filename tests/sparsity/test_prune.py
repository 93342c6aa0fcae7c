"""Pruning while training: what it takes, and that the zeros are exact in every setting."""

import numpy as np
import pytest
import tensorflow as tf
from nets.pruned_nets import (
    STEPS,
    X,
    Y,
    assert_exact,
    compiled,
    conv_net,
    dense_net,
    fit,
    keras3,
    subclassed,
    zeros_of,
)

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.sparsity import constraint_masks, masks


def nested():
    keras = keras3()
    inputs = keras.Input((12,))
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(dense_net(name="inner")(inputs)))


def shared():
    keras = keras3()
    inputs = keras.Input((12,))
    layer = keras.layers.Dense(12, activation="relu")
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(layer(layer(inputs))))


def composite():
    """Layers inside layers: attention, Bidirectional, TimeDistributed."""
    keras = keras3()
    inputs = keras.Input((12,))
    sequence = keras.layers.Reshape((3, 4))(inputs)
    sequence = keras.layers.Bidirectional(keras.layers.LSTM(5, return_sequences=True))(sequence)
    sequence = keras.layers.MultiHeadAttention(2, 4)(sequence, sequence)
    sequence = keras.layers.TimeDistributed(keras.layers.Dense(6))(sequence)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(sequence)))


@pytest.mark.parametrize("build", [dense_net, nested, subclassed, shared, composite])
def test_every_kind_of_model(build):
    model = compiled(ep.prune_low_magnitude(build(), ep.PolynomialDecay(0.0, 0.8)))
    fit(model)
    assert_exact(model)
    assert len(zeros_of(model)) >= 2


def test_tf_keras_models_are_wrapped_by_tfmot():
    model = compiled(ep.prune_low_magnitude(dense_net("tf_keras"), ep.PolynomialDecay(0.0, 0.8)))
    tfmot = flavors.import_tfmot()
    assert type(model.layers[0]).__mro__[1].__module__.startswith(tfmot.__name__)
    fit(model)
    assert_exact(model)
    stripped = ep.strip_pruning(model)
    assert [layer.name for layer in stripped.layers] == ["first", "second", "head"]
    assert_exact(stripped)
    np.testing.assert_allclose(stripped.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5)


@pytest.mark.parametrize(
    "compile_arguments",
    [
        dict(steps_per_execution=4),
        dict(steps_per_execution=STEPS),
        dict(jit_compile=True),
        dict(run_eagerly=True),
    ],
    ids=str,
)
def test_every_way_to_compile(compile_arguments):
    model = compiled(ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8)), **compile_arguments)
    fit(model)
    assert_exact(model)
    assert ep.pruning_step(model) == 2 * STEPS


@pytest.mark.parametrize(
    ("name", "arguments", "importance"),
    [
        ("SGD", dict(momentum=0.9, nesterov=True), "magnitude"),
        ("AdamW", dict(weight_decay=0.1), "magnitude"),
        ("Muon", {}, "magnitude"),
        ("Muon", {}, "taylor"),  # the gradients that it is passed are not those that it applies
        ("Adam", dict(gradient_accumulation_steps=3), "magnitude"),
        ("Adam", dict(gradient_accumulation_steps=3), "taylor"),
        ("Adam", dict(use_ema=True), "magnitude"),
        ("Adam", dict(use_ema=True, ema_overwrite_frequency=3), "magnitude"),
        ("Adam", dict(use_ema=True, ema_overwrite_frequency=3), "taylor"),
    ],
    ids=str,
)
def test_every_optimizer(name, arguments, importance):
    optimizer = getattr(keras3().optimizers, name)(**arguments)
    model = ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8), importance=importance)
    fit(compiled(model, optimizer))
    assert_exact(model)


@pytest.mark.parametrize(
    ("policy", "importance"),
    [("mixed_float16", "taylor"), ("mixed_bfloat16", "magnitude"), ("bfloat16", "magnitude"), ("bfloat16", "taylor")],
)
def test_every_precision(policy, importance):
    keras = keras3()
    keras.utils.set_random_seed(0)  # how many magnitudes tie is chance
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = dense_net()
    finally:
        keras.config.set_dtype_policy(before)
    model = ep.prune_low_magnitude(model, ep.ConstantSparsity(0.5, 0, frequency=2), importance=importance)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(use_ema=True))
    fit(compiled(model, optimizer))
    # bfloat16 has 8 bits: many magnitudes tie, and ties are kept.
    slack = 0.05 if policy == "bfloat16" else 1 / 48
    assert all(abs(row.sparsity - 0.5) <= slack for row in ep.sparsity_report(model).rows)


@pytest.mark.parametrize("arguments", [{}, dict(importance="taylor"), dict(scope="global")], ids=str)
def test_mirrored_strategy(arguments, two_replicas):
    with two_replicas.scope():
        model = dense_net()
        optimizer = keras3().optimizers.Adam(use_ema=True)
        model = compiled(ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8), **arguments), optimizer)
    fit(model)
    if arguments.get("scope") == "global":
        assert ep.sparsity_report(model).zeros == 944 - masks.kept_count(944, 0.8)
    else:
        assert_exact(model)
    for layer in model.layers:
        copies = [replica.numpy() for replica in layer.kernel.value.values]
        np.testing.assert_array_equal(copies[0] == 0, copies[1] == 0)


def test_tfmots_script_with_only_the_import_changed(flavor, tmp_path):
    """The steps of TF-MOT's pruning tutorial, under its names."""
    sparsity = ep
    keras = flavors.keras_module(flavor)
    model = compiled(dense_net(flavor))
    model.fit(X, Y, batch_size=16, verbose=0)
    end_step = np.ceil(96 / 16).astype(np.int32) * 2
    pruning_params = {
        "pruning_schedule": sparsity.PolynomialDecay(
            initial_sparsity=0.50, final_sparsity=0.80, begin_step=0, end_step=end_step, frequency=2
        )
    }
    model_for_pruning = sparsity.prune_low_magnitude(model, **pruning_params)
    model_for_pruning.compile("adam", keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])
    callbacks = [sparsity.UpdatePruningStep(), sparsity.PruningSummaries(log_dir=str(tmp_path))]
    model_for_pruning.fit(X, Y, batch_size=16, epochs=2, validation_split=0.0, verbose=0, callbacks=callbacks)
    model_for_export = ep.strip_pruning(model_for_pruning)
    assert_exact(model_for_export)


@pytest.mark.parametrize(
    ("pooling", "setting"),
    [
        ("AVG", {}),
        ("AVG", dict(block_size=(3, 2))),
        ("MAX", dict(block_size=(3, 2))),
        ("AVG", dict(sparsity_m_by_n=(2, 4))),
    ],
    ids=str,
)
def test_masks_after_training_equal_tfmots_bit_for_bit(setting, pooling, rng):
    """Equal weights and steps (the learning rate is zero) on both Kerases."""
    schedule = dict(initial_sparsity=0.3, final_sparsity=0.7, begin_step=1, end_step=9, frequency=4)
    kernels = {}
    weights = [rng.normal(size=w.shape) for w in dense_net().get_weights()]
    for flavor in ("keras", "tf_keras"):
        keras = flavors.keras_module(flavor)
        model = dense_net(flavor)
        model.set_weights(weights)
        model = ep.prune_low_magnitude(model, ep.PolynomialDecay(**schedule), block_pooling_type=pooling, **setting)
        fit(compiled(model, keras.optimizers.SGD(0.0)), epochs=2)
        kernels[flavor] = [layer.kernel.numpy() for layer in ep.strip_pruning(model).layers]
    for ours, tfmots in zip(kernels["keras"], kernels["tf_keras"], strict=True):
        assert (ours == 0).any()
        np.testing.assert_array_equal(ours, tfmots)


def test_convolutions_under_m_by_n_equal_tfmots(rng):
    found = {}
    for flavor in ("keras", "tf_keras"):
        model = conv_net(flavor)
        model.get_layer("conv").set_weights([rng.normal(size=(3, 3, 3, 8)), np.zeros(8)])
        model = ep.prune_low_magnitude(model, sparsity_m_by_n=(1, 2), layers="conv")
        found[flavor] = model
    weights = found["keras"].get_layer("conv").get_weights()
    for flavor, model in found.items():
        keras = flavors.keras_module(flavor)
        stripped_conv = model.layers[0] if flavor == "keras" else model.layers[0].layer
        stripped_conv.set_weights(weights)
        model.compile(keras.optimizers.SGD(0.0), "mse")
        fit(model, epochs=1, x=np.zeros((32, 8, 8, 3), np.float32), y=np.zeros((32, 4), np.float32))
        found[flavor] = stripped_conv.kernel.numpy()
    assert (found["keras"] == 0).any()
    np.testing.assert_array_equal(found["keras"], found["tf_keras"])


def test_the_right_weights_survive():
    """Oracle in plain NumPy: with a learning rate of zero the largest weights are the ones kept."""
    model = dense_net()
    before = model.get_layer("first").kernel.numpy()
    model = ep.prune_low_magnitude(model, ep.ConstantSparsity(0.6, 0, frequency=1))
    fit(compiled(model, keras3().optimizers.SGD(0.0)), epochs=1)
    after = model.get_layer("first").kernel.numpy()
    kept = np.argsort(-np.abs(before), axis=None)[: masks.kept_count(before.size, 0.6)]
    expected = np.zeros_like(before)
    expected.flat[kept] = before.flat[kept]
    np.testing.assert_array_equal(after, expected)


def test_zeros_are_positive_zeros(flavor):
    """A negative zero is a zero to TensorFlow but not to gzip."""
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.8)))
    fit(model)
    for layer in ep.strip_pruning(model).layers:
        kernel = layer.kernel.numpy()
        assert not np.signbit(kernel[kernel == 0]).any()


def test_global_scope_ranks_all_layers_together(flavor):
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.7), scope="global"))
    fit(model)
    stripped = ep.strip_pruning(model)
    kernels = [layer.kernel.numpy() for layer in stripped.layers]
    size = sum(kernel.size for kernel in kernels)
    assert sum(int((kernel == 0).sum()) for kernel in kernels) == size - masks.kept_count(size, 0.7)
    assert len({round(float((kernel == 0).mean()), 2) for kernel in kernels}) > 1


@pytest.mark.parametrize(
    "schedule",
    [
        dict(begin_step=0, frequency=6),
        # Due at the first step, before any gradient: a choice by magnitude could never be taken back, so it waits.
        dict(begin_step=1, frequency=100),
    ],
    ids=str,
)
def test_taylor_importance_keeps_the_weights_with_gradient(schedule, flavor):
    """Inputs that are always zero give their weights no gradient, whatever their magnitude."""
    model = dense_net(flavor)
    weights = model.get_weights()
    weights[0][:6] *= 100
    model.set_weights(weights)
    x = X.copy()
    x[:, :6] = 0
    schedule = ep.ConstantSparsity(0.5, **schedule)
    model = ep.prune_low_magnitude(model, schedule, layers="*first*", importance="taylor")
    fit(compiled(model), x=x, epochs=1)
    kernel = ep.strip_pruning(model).layers[0].kernel.numpy()
    assert (kernel[:6] == 0).mean() > 0.9 and (kernel[6:] == 0).mean() < 0.1


@pytest.mark.parametrize("scope", ["local", "global"])
def test_taylor_in_half_precision_on_tf_keras(scope):
    """The first steps overflow under loss scaling; their gradients must not count."""
    keras = flavors.keras_module("tf_keras")
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = ep.prune_low_magnitude(
            dense_net("tf_keras"), ep.PolynomialDecay(0.0, 0.5), importance="taylor", scope=scope
        )
    finally:
        keras.mixed_precision.set_global_policy(before)
    optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=2.0**28)
    fit(compiled(model, optimizer), epochs=8)
    assert ep.sparsity_report(ep.strip_pruning(model)).sparsity == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("flavor", ["keras", "tf_keras"])
def test_global_taylor_drops_a_frozen_layer_first(flavor):
    """It has no gradients, and must not outrank the layers that have."""
    model = dense_net(flavor)
    model.get_layer("second").trainable = False
    model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.4), scope="global", importance="taylor")
    fit(compiled(model))
    zeros = {name.partition("/")[0]: count for name, count in zeros_of(ep.strip_pruning(model)).items()}
    assert zeros["second"] > 0.85 * sum(zeros.values())  # the rest hang on units that never fire


def test_schedules_by_layer():
    schedules = {"first": ep.PolynomialDecay(0.0, 0.9), "h*": ep.ConstantSparsity(0.5, 0, frequency=1)}
    model = compiled(ep.prune_low_magnitude(dense_net(), schedules))
    fit(model)
    rows = {row.layer: row for row in ep.sparsity_report(model).rows}
    assert (rows["first"].zeros, rows["second"].zeros, rows["head"].zeros) == (346, 0, 24)
    assert rows["second"].note == "no pattern of pruning_schedule fits its name" and rows["first"].target == 0.9


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("first", {"first"}),
        ("*e*d", {"second", "head"}),
        (["first", "head"], {"first", "head"}),
        (lambda layer: getattr(layer, "units", 0) == 16, {"second"}),
    ],
    ids=["a name", "a pattern", "names", "a function"],
)
@pytest.mark.above_flavor
def test_choosing_layers(layers, expected, flavor):
    model = ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.8), layers=layers)
    fit(compiled(model))
    zeros = zeros_of(ep.strip_pruning(model))
    assert {name.partition("/")[0] for name, count in zeros.items() if count} == expected


def test_choosing_a_layer_object_and_a_nested_model():
    model = nested()
    inner = next(layer for layer in model.layers if layer.name == "inner")
    ep.prune_low_magnitude(model, layers=inner)
    assert {layer.name for layer in constraint_masks.pruned_layers(model)} == {"first", "second", "head"}


def test_layers_one_by_one_in_a_script(flavor):
    keras = flavors.keras_module(flavor)
    schedule = ep.PolynomialDecay(0.0, 0.8)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            *ep.prune_low_magnitude([keras.layers.Dense(32, activation="relu")], schedule),
            ep.prune_low_magnitude(keras.layers.Dense(16, activation="relu"), schedule),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    fit(compiled(model))
    assert [round(row.sparsity, 1) for row in ep.sparsity_report(ep.strip_pruning(model)).rows] == [0.8, 0.8, 0.0]


def test_what_cannot_be_pruned_is_skipped_and_listed(flavor):
    keras = flavors.keras_module(flavor)

    class Scale(keras.layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(name="factor", shape=(shape[-1],), initializer="ones")

        def call(self, inputs):
            return inputs * self.factor

    model = conv_net(flavor)
    model.add(Scale(name="scale"))
    model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.5))
    skipped = ep.sparsity_report(model).skipped
    assert set(skipped) == {"norm", "depthwise", "scale"}
    assert "get_prunable_weights" in skipped["scale"]
    model.compile("sgd", "mse")
    fit(model, x=np.zeros((32, 8, 8, 3), np.float32), y=np.zeros((32, 4), np.float32))
    assert zeros_of(ep.strip_pruning(model))["conv/kernel"] == 108


def test_a_layer_of_the_users_own_says_what_is_prunable(flavor):
    keras = flavors.keras_module(flavor)

    class Mixer(keras.layers.Layer):
        def build(self, shape):
            self.mixing = self.add_weight(name="mixing", shape=(shape[-1], 10), initializer="glorot_uniform")

        def call(self, inputs):
            return tf.matmul(inputs, self.mixing)

        def get_prunable_weights(self):
            return [self.mixing]

    model = keras.Sequential([keras.Input((12,)), Mixer(), keras.layers.Dense(3, activation="softmax")])
    model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.5))
    fit(compiled(model))
    assert_exact(ep.strip_pruning(model), 0.5)


def test_blocks_leave_convolutions_out(flavor):
    model = ep.prune_low_magnitude(conv_net(flavor), block_size=(2, 2))
    report = ep.sparsity_report(model)
    assert [row.layer for row in report.rows if row.target is not None] == ["dense"]
    assert "block_size needs a weight of 2 dimensions" in report.skipped["conv"]


def test_blocks_that_tfmot_stops_at_are_skipped():
    model = ep.prune_low_magnitude(dense_net("tf_keras"), block_size=(2, 3))
    assert "single row" in ep.sparsity_report(model).skipped["head"]


def test_a_users_constraint_still_holds():
    keras = keras3()
    model = keras.Sequential(
        [keras.Input((12,)), keras.layers.Dense(3, activation="softmax", kernel_constraint=keras.constraints.NonNeg())]
    )
    # One update, at the first step: later ones would meet the constraint's own zeros, all of which tie.
    model = compiled(ep.prune_low_magnitude(model, ep.ConstantSparsity(0.25, 1, frequency=1000)))
    fit(model)
    kernel = model.layers[0].kernel.numpy()
    mask = constraint_masks.masked_weights(model)[0].mask()
    assert (~mask).sum() == 9 and not kernel[~mask].any()
    assert kernel.min() >= 0 and kernel.max() > 0
    ep.strip_pruning(model)
    assert isinstance(model.layers[0].kernel.constraint, keras.constraints.NonNeg)


def test_a_layer_that_names_a_kernel_of_a_layer_inside_it():
    keras = keras3()

    class Wrapped(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="wrapped")
            self.dense = keras.layers.Dense(10)

        def build(self, shape):
            self.dense.build(shape)

        def call(self, inputs):
            return self.dense(inputs)

        def get_prunable_weights(self):
            return [self.dense.kernel]

    model = keras.Sequential([keras.Input((12,)), Wrapped(), keras.layers.Dense(3, activation="softmax")])
    model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.5))
    fit(compiled(model))
    report = ep.sparsity_report(model)
    assert report.size == 120 + 30 and report.zeros == 75
    kernel = ep.strip_pruning(model).layers[0].dense.kernel
    assert kernel.constraint is None


def test_a_layer_is_known_by_its_exact_name_and_by_the_way_to_it():
    keras = keras3()
    inputs = keras.Input((12,))
    hidden = dense_net(name="a")(inputs)
    odd = keras.layers.Dense(4, name="head[1]")(dense_net(name="b")(inputs))
    model = keras.Model(inputs, [hidden, odd])
    ep.prune_low_magnitude(model, layers=["head[1]", "a/first"])
    targeted = {row.layer for row in ep.sparsity_report(model).rows if row.target is not None}
    assert targeted == {"head[1]", "a/first"}


def test_pruning_policy_decides(flavor):
    from edgeprune.sparsity.policies import PruningPolicy

    class OnlyNarrow(PruningPolicy):
        def allow_pruning(self, layer):
            return getattr(layer, "units", 99) < 20

        def ensure_model_supports_pruning(self, model):
            if model.name == "refused":
                raise ValueError("refused by the policy")

    model = ep.prune_low_magnitude(dense_net(flavor), pruning_policy=OnlyNarrow())
    assert {row.layer for row in ep.sparsity_report(model).rows if row.target is not None} == {"second", "head"}
    with pytest.raises(ValueError, match="refused by the policy"):
        ep.prune_low_magnitude(dense_net(flavor, name="refused"), pruning_policy=OnlyNarrow())
