"""Residual blocks: what is removed, and that the rest computes what the original does without their contribution."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from nets.cuts import randomize
from nets.samples import labelled

from edgeprune import flavor as flavors
from edgeprune.depth.blocks import plan_blocks, remove_blocks
from edgeprune.depth.identity import drop_identity_layers
from edgeprune.depth.residual_blocks import find_blocks
from edgeprune.measure.macs import count_macs

X, Y = labelled(24, 8, 8, 3, classes=4)


def first_version(keras):
    """ResNet v1: the activation stands behind the addition, and the first block of a stage projects its shortcut."""
    layers = keras.layers

    def block(x, width, name, projects=False):
        y = layers.Conv2D(width, 3, padding="same", name=f"{name}_conv1", activation="relu")(x)
        y = layers.Conv2D(width, 3, padding="same", name=f"{name}_conv2")(y)
        y = layers.BatchNormalization(name=f"{name}_norm")(y)
        x = layers.Conv2D(width, 1, name=f"{name}_shortcut")(x) if projects else x
        return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))

    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    x = block(x, 6, "a1")
    x = block(x, 10, "b1", projects=True)
    x = block(x, 10, "b2")
    x = block(x, 10, "b3")
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(4, name="head", activation="softmax")(x), name="v1")


def second_version(keras):
    """ResNet v2, and the inverted bottleneck of MobileNetV2; the sums are functions, not layers."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    for name in ("p", "q"):
        y = layers.BatchNormalization(name=f"{name}_norm")(x)
        y = layers.Conv2D(6, 3, padding="same", name=f"{name}_conv")(layers.ReLU()(y))
        x = x + y
    y = layers.Conv2D(12, 1, name="expand")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    x = x + layers.Conv2D(6, 1, name="project")(y)
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(x)), name="v2")


def nested(keras):
    """Blocks in a nested model that is called twice, and one block inside another's branch."""
    layers = keras.layers
    inner_inputs = keras.Input((8, 8, 6))
    x = layers.Add(name="inner_add")([inner_inputs, layers.Conv2D(6, 1, name="inner_conv")(inner_inputs)])
    body = keras.Model(inner_inputs, layers.ReLU()(x), name="body")
    inputs = keras.Input((8, 8, 3))
    x = body(layers.Conv2D(6, 1, name="stem")(inputs))
    y = layers.Conv2D(6, 1, name="outer_conv")(x)
    y = layers.Add(name="middle_add")([layers.Conv2D(6, 1, name="middle_conv")(y), y])
    x = layers.Add(name="outer_add")([x, y])
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(body(x))), name="nested")


NETS = {"v1": first_version, "v2": second_version, "nested": nested}


def net(flavor, name="v1"):
    keras = flavors.keras_module(flavor)
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return randomize(NETS[name](keras))


@functools.cache
def unchanged_net(flavor):
    """For what is refused, one net for all."""
    return net(flavor)


def outputs(model, x=X):
    return np.asarray(model(x, training=False))


def silence(model, layer):
    """Set to zero what a layer gives: its branch contributes nothing."""
    for weight in model.get_layer(layer).weights:
        weight.assign(np.zeros(tuple(weight.shape), np.float32))


def names(model):
    return [layer.name for layer in flavors.layers_of(model)]


def test_blocks_of_the_first_version(flavor):
    blocks = find_blocks(net(flavor))
    assert [block.name for block in blocks] == ["a1_add", "b2_add", "b3_add"]  # b1 projects its shortcut
    assert blocks[1].layers == ("b2_conv1", "b2_conv2", "b2_norm", "b2_add")
    assert blocks[1].macs == 8 * 8 * 9 * 10 * (10 + 10)


def test_blocks_of_the_second_version(flavor):
    blocks = find_blocks(net(flavor, "v2"))
    assert [next(name for name in block.layers if "conv" in name or name == "project") for block in blocks] == [
        "p_conv",
        "q_conv",
        "project",
    ]


def test_blocks_inside_others(flavor):
    blocks = {block.name: block.layers for block in find_blocks(net(flavor, "nested"))}
    assert blocks == {
        "body/inner_add": ("body/inner_conv", "body/inner_add"),
        "middle_add": ("middle_conv", "middle_add"),
        "outer_add": ("outer_conv", "middle_conv", "middle_add", "outer_add"),
    }


@pytest.mark.parametrize(
    ("name", "silenced", "gone"),
    [
        ("v1", ["a1_norm"], ["a1_conv1", "a1_conv2", "a1_norm", "a1_add"]),
        ("v1", ["b2_norm", "b3_norm"], ["b2_conv1", "b3_norm"]),
        ("v2", ["q_conv"], ["q_norm", "q_conv"]),
        ("v2", ["project", "p_conv"], ["expand", "depthwise", "project", "p_norm"]),
    ],
)
def test_the_original_with_silent_branches_computes_the_same(flavor, name, silenced, gone):
    """The branches are silenced by their weights, which makes them the least harmful ones too."""
    model = net(flavor, name)
    for layer in silenced:
        silence(model, layer)
    before = [np.asarray(weight).copy() for weight in model.weights]
    shallower = remove_blocks(model, num_blocks=len(silenced), data=X)
    np.testing.assert_allclose(outputs(shallower), outputs(model), rtol=1e-4, atol=1e-6)
    assert not set(gone) & set(names(shallower))
    assert set(names(shallower)) <= set(names(model))
    for weight, values in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), values)


@pytest.mark.parametrize("name", NETS)
def test_removal_is_equal_to_the_gated_original(flavor, name):
    """`apply` proves it: it raises if not."""
    model = net(flavor, name)
    plan = plan_blocks(model, num_blocks=2, data=X, batch_size=10)
    shallower = plan.apply(verify=True)
    assert len(plan.removed) == 2
    assert count_macs(shallower).total == plan.macs_after < plan.macs_before == count_macs(model).total
    assert not set(plan.removed[0].layers) & set(names(shallower))


@pytest.mark.above_flavor
def test_a_score_is_the_change_of_the_output(flavor):
    model = net(flavor)
    plan = plan_blocks(model, num_blocks=1, data=X, batch_size=7)
    expected = outputs(model)
    for block in plan.blocks:
        other = net(flavor)
        silence(other, block.name.replace("_add", "_norm"))
        change = np.linalg.norm(outputs(other) - expected) / np.linalg.norm(expected)
        assert block.score == pytest.approx(change, rel=1e-3)
    best = min(plan.blocks, key=lambda block: block.score)
    assert best.removed == 1 and best.score_when_removed == best.score
    assert plan.measure == "change of the output"


@pytest.mark.above_flavor
def test_a_score_is_the_increase_of_the_loss_where_there_are_labels(flavor):
    keras = flavors.keras_module(flavor)
    model = net(flavor)
    loss = keras.losses.SparseCategoricalCrossentropy()
    plan = plan_blocks(model, num_blocks=1, data=(X, Y), loss="sparse_categorical_crossentropy", batch_size=7)
    assert plan.measure == "increase of the loss"
    for block in plan.blocks:
        other = net(flavor)
        silence(other, block.name.replace("_add", "_norm"))
        assert block.score == pytest.approx(float(loss(Y, outputs(other)) - loss(Y, outputs(model))), abs=1e-4)
    assert plan_blocks(model, num_blocks=1, data=(X, Y)).measure == "change of the output"  # no loss is known


@pytest.mark.above_flavor
def test_blocks_are_scored_anew_after_each_removal(flavor):
    """Two branches that cancel each other: each matters alone, and neither does once the other is gone with it."""
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    inputs = keras.Input((4,))
    x = inputs
    for name in ("one", "two", "three"):
        x = layers.Add(name=f"{name}_add")([x, layers.Dense(4, use_bias=False, name=name)(x)])
    model = keras.Model(inputs, x)
    # (1 + 1) (1 - 0.5) = 1: without "one", removing "two" puts the scale right again.
    for name, factor in (("one", 1.0), ("two", -0.5), ("three", 0.45)):
        model.get_layer(name).kernel.assign(np.eye(4, dtype=np.float32) * factor)
    plan = plan_blocks(model, num_blocks=2, data=X[:, 0, 0, :1].repeat(4, axis=1))
    rows = {row.name: row for row in plan.blocks}
    assert [block.name for block in plan.removed] == ["three_add", "two_add"] or [
        block.name for block in plan.removed
    ] == ["three_add", "one_add"]
    assert rows["three_add"].score == pytest.approx(0.45 / 1.45, rel=1e-4)
    second = plan.removed[1].name
    factor = {"one_add": 0.5, "two_add": 2.0}[second]
    assert rows[second].score_when_removed == pytest.approx(abs(factor - 1.45) / 1.45, rel=1e-4)
    assert rows[second].score == pytest.approx(abs(factor - 1), rel=1e-4)


@pytest.mark.above_flavor
def test_a_target_in_macs(flavor):
    model = net(flavor)
    plan = plan_blocks(model, target_macs=0.7, data=X)
    before_last = plan.macs_after + plan.removed[-1].macs
    assert plan.macs_after <= 0.7 * plan.macs_before < before_last
    assert count_macs(plan.apply()).total == plan.macs_after


@pytest.mark.above_flavor
def test_the_table(flavor):
    plan = plan_blocks(net(flavor), num_blocks=1, data=X, ignore="b2_*")
    text = str(plan).splitlines()
    assert text[0].startswith("1 of 3 blocks of v1 are removed, MACs ")
    assert [line.split()[0] for line in text[2:]] == ["a1_add", "b2_add", "b3_add"]
    assert text[3].split()[3] == "nan"
    assert sum("1. (" in line for line in text) == 1


@pytest.mark.above_flavor
def test_compile_state_stays(flavor):
    model = net(flavor)
    model.compile("sgd", "sparse_categorical_crossentropy")
    shallower = remove_blocks(model, num_blocks=1, data=(X, Y))
    shallower.fit(X, Y, verbose=0)


def test_saved_without_this_package(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    shallower = remove_blocks(net(flavor, "nested"), num_blocks=1, data=X)
    shallower.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(outputs(loaded), outputs(shallower), rtol=1e-5, atol=1e-6)


SLOW = pytest.mark.slow


# The nets above are of the same kinds, in both Kerases: `v1` is ResNet50's, `v2` ResNet50V2's and MobileNetV2's.
@pytest.mark.parametrize(
    ("flavor", "name"),
    [
        (flavors.KERAS_3, "MobileNetV2"),
        pytest.param(flavors.TF_KERAS, "ResNet50V2", marks=SLOW),
        pytest.param(flavors.TF_KERAS, "MobileNetV2", marks=SLOW),
        pytest.param(flavors.KERAS_3, "ResNet50V2", marks=SLOW),
        pytest.param(flavors.KERAS_3, "ResNet50", marks=SLOW),
        pytest.param(flavors.TF_KERAS, "ResNet50", marks=SLOW),
    ],
)
def test_nets_of_keras_applications(flavor, name):
    keras = flavors.keras_module(flavor)
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=5)
    blocks = find_blocks(model)
    assert len(blocks) == {"ResNet50": 12, "ResNet50V2": 9, "MobileNetV2": 10}[name]
    for number, block in enumerate(blocks):  # all blocks but two are silent
        if number not in (1, 2):
            endings = ("_3_conv",) if name == "ResNet50V2" else ("_bn", "_BN")
            silence(model, [layer for layer in block.layers if layer.endswith(endings)][-1])
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    plan = plan_blocks(model, num_blocks=3, data=x)
    assert all(block.score_when_removed == 0 for block in plan.blocks if block.removed)
    shallower = plan.apply()
    np.testing.assert_allclose(outputs(shallower, x), outputs(model, x), rtol=1e-4, atol=1e-6)
    assert count_macs(shallower).total == plan.macs_after


def test_identity_layers_are_dropped(flavor):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Dropout(0.0)(inputs)
    x = layers.ZeroPadding2D(0)(x)
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = layers.Activation("linear")(layers.Cropping2D(0)(x))
    x = layers.BatchNormalization(epsilon=0.25, name="one")(x)
    x = layers.BatchNormalization(name="norm")(layers.MaxPooling2D(1)(x))
    x = layers.UpSampling2D(1)(layers.Dropout(0.5, name="half")(x))
    x = layers.ZeroPadding2D(((0, 1), (0, 0)), name="padding")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Flatten()(layers.Reshape((168,))(x))
    x = layers.GaussianNoise(0.0)(layers.Rescaling(1.0)(x))
    outputs_ = layers.Activation("linear", name="out")(layers.Dense(2, name="head")(x))
    model = randomize(keras.Model(inputs, outputs_))
    one = model.get_layer("one")
    for weight, value in ((one.gamma, 1), (one.beta, 0), (one.moving_mean, 0), (one.moving_variance, 0.75)):
        weight.assign(np.full(4, value, np.float32))
    smaller = drop_identity_layers(model)
    assert names(smaller)[1:] == ["conv", "norm", "half", "padding", "flat", "head", "out"]
    np.testing.assert_allclose(outputs(smaller), outputs(model), rtol=1e-6)


def test_a_change_of_dtype_is_no_identity(flavor):
    keras = flavors.keras_module(flavor)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, dtype="mixed_bfloat16", name="low")(inputs)
    x = keras.layers.Activation("linear", dtype="float32", name="cast")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    assert "cast" in names(drop_identity_layers(model))


def test_a_sequential_model_stays_one(flavor):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="a"), layers.Dropout(0), layers.Dense(2, name="b")]
    )
    smaller = drop_identity_layers(model)
    assert isinstance(smaller, keras.Sequential)
    assert [layer.name for layer in smaller.layers] == ["a", "b"]
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(outputs(smaller, x), outputs(model, x))


def test_identity_layers_in_a_nested_model(flavor):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    inner = keras.Sequential([keras.Input((4,)), layers.Dropout(0), layers.Dense(3, name="inner")], name="body")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Dropout(0)(inner(inputs))))
    smaller = drop_identity_layers(model)
    assert [name for name in names(smaller) if "input" not in name] == ["body", "inner", "head"]


@pytest.mark.above_flavor
def test_a_wrong_removal_is_noticed(flavor, monkeypatch):
    plan = plan_blocks(net(flavor), num_blocks=1, data=X)
    monkeypatch.setattr(
        flavors, "Rebuilder", functools.partial(flavors.Rebuilder, cut=lambda weight: np.asarray(weight) * 1.5)
    )
    with pytest.raises(RuntimeError, match="not to be trusted"):
        plan.apply()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": X}, "Pass exactly one of num_blocks= and target_macs="),
        ({"data": X, "num_blocks": 1, "target_macs": 0.5}, "Pass exactly one of num_blocks= and target_macs="),
        ({"data": X, "num_blocks": 0}, "num_blocks must be a whole number of 1 or more; got 0"),
        ({"data": X, "target_macs": 1.5}, "target_macs is the fraction"),
        ({"num_blocks": 1}, "scored on data"),
        ({"num_blocks": 4, "data": X}, "Only 3 of the blocks of 'v1' can be removed"),
        ({"target_macs": 0.01, "data": X}, "of its MACs are left"),
        ({"num_blocks": 1, "data": X, "ignore": ["nothing*"]}, "'nothing\\*'"),
        ({"num_blocks": 1, "data": []}, "no batches"),
        ({"num_blocks": 1, "data": X, "batch_size": 0}, "batch_size must be a whole number of 1 or more"),
    ],
)
@pytest.mark.above_flavor
def test_arguments_that_make_no_sense(flavor, arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_blocks(unchanged_net(flavor), **arguments)


@pytest.mark.above_flavor
def test_a_model_that_gives_nan_is_told(flavor):
    model = net(flavor)
    model.layers[-1].bias.assign(np.full(model.layers[-1].bias.shape, np.nan, np.float32))
    with pytest.raises(ValueError, match="returns NaN or infinity on this data"):
        plan_blocks(model, num_blocks=1, data=X)


@pytest.mark.above_flavor
def test_a_count_that_is_no_number(flavor):
    for count in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="num_blocks must be a finite number"):
            plan_blocks(unchanged_net(flavor), num_blocks=count, data=X)
    with pytest.raises(TypeError, match="ignore must be names or patterns of blocks"):
        plan_blocks(unchanged_net(flavor), num_blocks=1, data=X, ignore=3)
    with pytest.raises(TypeError, match="num_blocks must be a number; got 'all'"):
        plan_blocks(unchanged_net(flavor), num_blocks="all", data=X)


@pytest.mark.above_flavor
def test_models_without_blocks(flavor):
    keras = flavors.keras_module(flavor)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="has no residual blocks"):
        plan_blocks(model, num_blocks=1, data=np.ones((2, 4), np.float32))
    with pytest.raises(TypeError, match="Expected a Keras model"):
        find_blocks("model.keras")


def test_a_subclassed_model():
    keras = flavors.keras_module(flavors.KERAS_3)

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.stem, self.branch, self.head = (keras.layers.Dense(n) for n in (6, 6, 2))

        def call(self, x):
            x = self.stem(x)
            return self.head(x + self.branch(x))

    model = Net()
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    model(x)
    shallower = remove_blocks(randomize(model), num_blocks=1, data=x)
    np.testing.assert_allclose(outputs(shallower, x), np.asarray(model.head(model.stem(x))), rtol=1e-5)
