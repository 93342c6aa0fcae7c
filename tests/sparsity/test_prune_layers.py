"""Layers one by one, models given again and arguments, as TF-MOT has them: pruned, or an error that names the layer."""

import warnings

import pytest
import tensorflow as tf
from nets.pruned_nets import X, assert_exact, compiled, conv_net, dense_net, fit

import edgeprune as ep
from edgeprune import flavor as flavors


def half():
    return ep.ConstantSparsity(0.5, 0, frequency=1)


def sparsities(model):
    return {row.layer: round(row.sparsity, 2) for row in ep.sparsity_report(model).rows if row.weight}


def mixer(keras):
    """A layer of the user's own that says nothing of what can be pruned in it."""

    class Mixer(keras.layers.Layer):
        def build(self, shape):
            self.mixing = self.add_weight(name="mixing", shape=(shape[-1], 10), initializer="glorot_uniform")

        def call(self, inputs):
            return tf.matmul(inputs, self.mixing)

    return Mixer(name="mixer")


def test_a_layer_keeps_the_schedule_it_has(flavor):
    keras = flavors.keras_module(flavor)
    head = ep.prune_low_magnitude(keras.layers.Dense(3, name="head"), ep.ConstantSparsity(0.75, 0, frequency=1))
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(8, name="body"), head])
    model = compiled(ep.prune_low_magnitude(model, half(), layers=["body", "head"]))
    fit(model)
    assert sparsities(ep.strip_pruning(model)) == {"body": 0.5, "head": 0.75}


@pytest.mark.parametrize("policy", [None, ep.PruneForLatencyOnXNNPack])
def test_a_model_given_twice_keeps_its_first_schedule(policy, flavor):
    keras = flavors.keras_module(flavor)
    layers = [
        keras.layers.Reshape((1, 1, 12)),
        keras.layers.ZeroPadding2D(1),
        keras.layers.Conv2D(8, 3, strides=2, name="first"),
        keras.layers.Conv2D(8, 1, name="second"),
        keras.layers.GlobalAveragePooling2D(keepdims=True),
    ]
    model = keras.Sequential([keras.Input((12,)), *layers]) if policy is None else None
    model = model or keras.Sequential([keras.Input((1, 1, 3)), *layers[1:]])
    arguments = {} if policy is None else dict(pruning_policy=policy())
    model = ep.prune_low_magnitude(model, half(), **arguments)
    with pytest.warns(UserWarning, match="keeps its schedule"):
        model = ep.prune_low_magnitude(model, ep.ConstantSparsity(0.75, 0, frequency=1), **arguments)
    targets = {row.layer: row.target for row in ep.sparsity_report(model).rows if row.weight}
    assert targets == {"first": 0.5 if policy is None else None, "second": 0.5}


def test_a_layer_that_cannot_be_pruned_is_refused_by_name(flavor):
    keras = flavors.keras_module(flavor)
    prune = ep.prune_low_magnitude
    for call in (
        lambda: prune(keras.layers.ConvLSTM2D(2, 3, name="odd")),
        lambda: prune([keras.layers.Dense(3), keras.layers.ConvLSTM2D(2, 3, name="odd")]),
    ):
        with pytest.raises(ValueError, match="Layer 'odd' cannot be pruned: .*ConvLSTM2D"):
            call()
    with pytest.raises(ValueError, match="Layer 'mixer' cannot be pruned: .*define get_prunable_weights"):
        prune(mixer(keras))
    built = mixer(keras)
    built.build((None, 12))
    with pytest.raises(ValueError, match="'mixer' cannot be pruned"):
        prune(built)


@pytest.mark.parametrize(
    ("layer", "arguments", "message"),
    [
        (("Conv1D", 4, 3), dict(sparsity_m_by_n=(2, 4)), "'late' cannot be pruned: sparsity_m_by_n"),
        (("Conv1D", 4, 3), dict(block_size=(2, 2)), "'late' cannot be pruned: block_size"),
    ],
)
def test_a_kernel_that_does_not_fit_is_refused_when_it_is_built(layer, arguments, message, flavor):
    keras = flavors.keras_module(flavor)
    kind, *sizes = layer
    late = ep.prune_low_magnitude(getattr(keras.layers, kind)(*sizes, name="late"), half(), **arguments)
    with pytest.raises(ValueError, match=message):
        keras.Sequential([keras.Input((8, 4)), late])


def test_what_a_keras_layer_turns_out_to_be_is_judged_when_it_is_built():
    keras = flavors.keras_module("keras")
    scored = ep.prune_low_magnitude(keras.layers.AdditiveAttention(name="scored"), half())
    inputs = keras.Input((6, 8))
    with pytest.raises(ValueError, match="'scored' cannot be pruned: no rule for AdditiveAttention"):
        scored([inputs, inputs])


def test_layers_without_weights_are_returned_and_depthwise_ones_with_a_warning(flavor):
    layers = flavors.keras_module(flavor).layers
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = [layers.ReLU(), layers.BatchNormalization(), layers.Dropout(0.4)]  # Dropout has a seed
        assert len(ep.prune_low_magnitude(given)) == 3 and ep.prune_low_magnitude(layers.Reshape((4, 3))) is not None
    with pytest.warns(UserWarning, match="'narrow' is not pruned: depthwise kernels"):
        ep.prune_low_magnitude(layers.DepthwiseConv2D(3, name="narrow"))


def test_parts_that_are_made_when_a_layer_is_built_are_pruned():
    """Attention makes its projections then, in a layer given by itself and in a model that is not built."""
    keras = flavors.keras_module("keras")

    class Attending(keras.Model):
        def __init__(self, attention):
            super().__init__()
            self.attention, self.flatten, self.head = attention, keras.layers.Flatten(), keras.layers.Dense(3)

        def call(self, inputs):
            sequence = tf.reshape(inputs, (-1, 3, 4))
            return tf.nn.softmax(self.head(self.flatten(self.attention(sequence, sequence))))

    alone = Attending(ep.prune_low_magnitude(keras.layers.MultiHeadAttention(2, 4, name="attention"), half()))
    whole = ep.prune_low_magnitude(Attending(keras.layers.MultiHeadAttention(2, 4, name="attention")), half())
    for model, head in ((alone, 0.0), (whole, 0.5)):
        fit(compiled(model), epochs=1)
        parts = ("query", "key", "value", "attention_output")
        model = ep.strip_pruning(model)
        assert [sparsities(model)[f"attention/{part}"] for part in parts] == [0.5] * 4
        assert (model.head.kernel.numpy() == 0).mean() == head


def subclassed_that_builds_its_layers():
    keras = flavors.keras_module("keras")

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(3, activation="softmax", name="head")

        def build(self, shape):
            self.inside = keras.layers.Dense(8, name="inside")
            self.inside.build(shape)
            self.head.build((None, 8))
            self.built = True

        def call(self, inputs):
            return self.head(self.inside(inputs))

    return Net()


def test_layers_that_a_model_makes_when_it_is_built_are_pruned():
    model = compiled(ep.prune_low_magnitude(subclassed_that_builds_its_layers(), half()))
    fit(model)
    assert sparsities(ep.strip_pruning(model)) == {"head": 0.5, "inside": 0.5}
    with pytest.warns(UserWarning, match="never trained"):
        model = ep.strip_pruning(ep.prune_low_magnitude(subclassed_that_builds_its_layers(), half()))
    model.build((None, 12))
    assert not ep.is_pruned(model)


def test_a_kernel_that_lora_has_made_dense_is_warned_of():
    model = compiled(ep.prune_low_magnitude(dense_net(), half()))
    fit(model)
    model.get_layer("second").enable_lora(2)
    with pytest.warns(UserWarning, match="^second: with LoRA the kernel is a sum"):
        ep.strip_pruning(model)


@pytest.mark.parametrize("way", ["on the object", "on a Dense", "a class", "PrunableLayer"])
def test_a_layer_says_what_is_prunable_in_it(way, flavor):
    keras = flavors.keras_module(flavor)
    if way == "on a Dense":
        layer = keras.layers.Dense(10, bias_initializer="random_normal")
        layer.get_prunable_weights = lambda: [layer.bias]
    elif way == "on the object":
        layer = mixer(keras)
        layer.get_prunable_weights = lambda: [layer.mixing]
    else:
        plain = type(mixer(keras))
        bases = (plain, ep.PrunableLayer) if way == "PrunableLayer" else (plain,)
        layer = type("Taught", bases, {"get_prunable_weights": lambda self: [self.mixing]})()
    for given in ("model", "layer"):
        model = [keras.Input((12,)), layer if given == "model" else ep.prune_low_magnitude(layer, half())]
        model = keras.Sequential([*model, keras.layers.Dense(3, activation="softmax", name="head")])
        model = ep.prune_low_magnitude(model, half())
        fit(compiled(model))
        model = ep.strip_pruning(model)
        weights = layer.get_weights()
        assert (weights[-1] == 0).mean() == 0.5, (way, given)
        if way == "on a Dense":
            assert weights[0].all()
        if flavor == "tf_keras":
            break  # TF-MOT's wrapper around a built layer is covered by test_pruning.py


def test_weights_that_are_none_are_named(flavor):
    keras = flavors.keras_module(flavor)
    model = dense_net(flavor)
    model.get_layer("second").get_prunable_weights = lambda: ["kernel"]
    with pytest.raises(ValueError, match="of layer 'second' must return a list of its variables"):
        ep.prune_low_magnitude(model)
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(4, name="none"), keras.layers.Dense(3)])
    model.get_layer("none").get_prunable_weights = list
    assert (
        ep.sparsity_report(ep.prune_low_magnitude(model)).skipped["none"] == "its get_prunable_weights() returns none"
    )


@pytest.mark.parametrize(
    "arguments", [dict(input_shape=(28, 28, 1)), dict(batch_input_shape=(None, 28, 28, 1))], ids=str
)
def test_the_input_shape_of_the_first_layer(arguments, flavor):
    layers = flavors.keras_module(flavor).layers
    model = flavors.keras_module(flavor).Sequential(
        [
            ep.prune_low_magnitude(layers.Conv2D(8, 3), half(), **arguments, name="ignored"),
            layers.Flatten(),
            ep.prune_low_magnitude(layers.Dense(10), half()),
        ]
    )
    assert model.built and tuple(model.output_shape) == (None, 10)
    with pytest.raises(TypeError, match="unheard_of"):
        ep.prune_low_magnitude(layers.Dense(3), unheard_of=1)


def test_a_plain_function_is_a_schedule(flavor):
    def schedule(step):
        return step % 3 == 0, 0.25

    model = compiled(ep.prune_low_magnitude(dense_net(flavor), schedule))
    fit(model)
    assert_exact(ep.strip_pruning(model), 0.25)
    if flavor == "tf_keras":
        with pytest.raises(ValueError, match="cannot be saved with it: derive a class from PruningSchedule"):
            model.get_config()


def test_m_by_n_goes_before_blocks_as_with_tfmot(flavor):
    """TF-MOT then takes the block size only to refuse what is no matrix."""
    arguments = dict(block_size=(2, 2), sparsity_m_by_n=(1, 4))
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), half(), **arguments))
    fit(model)
    model = ep.strip_pruning(model)
    assert all(
        ((layer.get_weights()[0] == 0).reshape(-1, 4, layer.units).sum(axis=1) == 1).all() for layer in model.layers
    )
    report = ep.sparsity_report(ep.prune_low_magnitude(conv_net(flavor), **arguments))
    assert [row.layer for row in report.rows if row.target is not None] == ["dense"]


def test_a_policy_is_not_asked_about_a_single_layer(flavor):
    layer = flavors.keras_module(flavor).layers.Dense(3)
    policy = ep.PruneForLatencyOnXNNPack()
    assert ep.is_pruned(ep.prune_low_magnitude(layer, pruning_policy=policy))
    with pytest.raises(TypeError, match="layers= chooses among the layers of a model"):
        ep.prune_low_magnitude([layer], layers="dense")


def test_a_block_that_covers_a_whole_weight_leaves_it_dense_and_is_warned_of():
    skipped = ep.sparsity_report(ep.prune_low_magnitude(dense_net(), block_size=(16, 16))).skipped
    assert list(skipped) == ["head"] and "one is always kept" in skipped["head"]


def test_layers_with_a_seed_alone_have_no_weights(flavor):
    keras = flavors.keras_module(flavor)
    layers = [keras.layers.Dropout(0.1), keras.layers.GaussianNoise(0.1), keras.layers.Dense(3)]
    model = ep.prune_low_magnitude(keras.Sequential([keras.Input((12,)), *layers]))
    assert ep.sparsity_report(model).skipped == {}


def test_layers_of_a_subclassed_tf_keras_model_are_stripped_one_by_one():
    keras = flavors.keras_module("tf_keras")

    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.inside = ep.prune_low_magnitude(keras.layers.Dense(8), half())
            self.head = keras.layers.Dense(3, activation="softmax")

        def call(self, inputs):
            return self.head(self.inside(inputs))

    model = compiled(Net())
    model(X)
    fit(model)
    with pytest.raises(ValueError, match=r"'net' is a subclassed .*model.dense = strip_pruning\(model.dense\)"):
        ep.strip_pruning(model)
    model.inside = ep.strip_pruning(model.inside)
    assert (model.inside.kernel.numpy() == 0).mean() == 0.5 and not ep.is_pruned(model)
    assert model.predict(X, verbose=0).shape == (96, 3)


def test_every_reason_reaches_the_report(flavor):
    keras = flavors.keras_module(flavor)

    def net():
        layers = [keras.layers.Dense(8, name=name) for name in ("one", "two", "three")]
        inside = keras.Sequential([keras.Input((12,)), *layers], name="inside")
        inputs = keras.Input((12,))
        return keras.Model(inputs, keras.layers.Dense(3, name="head")(inside(inputs)))

    class NotTwo(ep.PruningPolicy):
        def allow_pruning(self, layer):
            return layer.name != "two"

        def ensure_model_supports_pruning(self, model):
            pass

    model = ep.prune_low_magnitude(
        net(),
        {"o*": half(), "t*": half(), "head": half()},
        layers=lambda layer: layer.name != "head",
        pruning_policy=NotTwo(),
    )
    assert ep.sparsity_report(model).skipped == {
        "inside/two": "the pruning policy does not allow it",
        "head": "not among those that layers= chooses",
    }
    model = ep.prune_low_magnitude(net(), {"one": half()})
    around = keras.Sequential([keras.Input((12,)), model])  # names change, reasons stay
    assert set(ep.sparsity_report(around).skipped.values()) == {"no pattern of pruning_schedule fits its name"}


def test_the_reason_of_a_composite_layer_reaches_its_parts():
    keras = flavors.keras_module("tf_keras")
    both = keras.layers.Bidirectional(keras.layers.LSTM(4), name="both")
    model = keras.Sequential([keras.Input((6, 8)), both, keras.layers.Dense(4, name="dense")])
    skipped = ep.sparsity_report(ep.prune_low_magnitude(model, half())).skipped
    assert len(skipped) == 2 and all("does not know Bidirectional" in reason for reason in skipped.values())
