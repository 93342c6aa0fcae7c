"""Plans on small nets of both Kerases: what they say is counted again on the model they build."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune import flavor as flavors
from edgeprune.channels import rule
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.channels.plan.planning import plan_channels, prune_channels
from edgeprune.measure.macs import count_macs
from edgeprune.measure.parameters import count_parameters


def residual_net(flavor, width=16):
    keras = flavors.keras_module(flavor)
    keras.utils.set_random_seed(1)
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    for block in ("a", "b"):
        y = layers.Conv2D(24, 1, name=f"{block}_expand")(x)
        y = layers.DepthwiseConv2D(3, padding="same", name=f"{block}_depthwise")(y)
        y = layers.Conv2D(width, 1, name=f"{block}_project")(y)
        x = layers.Add(name=f"{block}_add")([x, y])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(20, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(x), name="residual")


def nested_net(flavor):
    keras = flavors.keras_module(flavor)
    inner = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(12, name="one"), keras.layers.Dense(10, name="two")], name="inner"
    )
    inputs = keras.Input((8,))
    x = keras.layers.Dense(6, name="after")(inner(inputs))
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(x), name="outer")


def left(plan):
    return {row.name: row.after for row in plan.planned}


@pytest.mark.parametrize("target", [{"pruning_ratio": 0.5}, {"target_macs": 0.5}, {"target_params": 0.4}])
@pytest.mark.parametrize("scope", ["local", "global", "isomorphic"])
@pytest.mark.above_flavor
def test_the_model_built_has_what_the_plan_says(flavor, target, scope):
    model = residual_net(flavor)
    before = [np.asarray(weight).copy() for weight in model.weights]
    plan = plan_channels(model, scope=scope, **target)
    smaller = plan.apply()
    assert plan.macs.before == count_macs(model).total
    assert plan.macs.after == count_macs(smaller).total
    assert plan.params.before == count_parameters(model).total
    assert plan.params.after == count_parameters(smaller).total
    (kind, asked), *_ = target.items()
    if kind != "pruning_ratio":
        assert getattr(plan, kind.removeprefix("target_")).kept == pytest.approx(asked, rel=0.01)
    assert plan.target.achieved == pytest.approx(asked, abs=0.02)
    for old, new, values, kept in zip(model.weights, smaller.weights, before, plan.kept, strict=True):
        np.testing.assert_array_equal(np.asarray(old), values)
        for axis, indices in kept.items():
            values = np.take(values, indices, axis)
        np.testing.assert_array_equal(np.asarray(new), values)


@pytest.mark.above_flavor
def test_groups_frozen_and_channels(flavor):
    plan = plan_channels(residual_net(flavor), pruning_ratio=0.5, scope="local")
    assert [group.name for group in plan.groups] == ["stem", "a_expand", "b_expand", "hidden", "head"]
    assert plan.groups[0].layers == ("stem", "a_project", "b_project")
    assert list(plan.frozen) == ["head"] and "output" in plan.frozen["head"]
    assert left(plan) == {"stem": 8, "a_expand": 12, "b_expand": 12, "hidden": 10}
    assert (plan.channels.before, plan.channels.after) == (84, 42)


def test_the_proof_passes_and_a_wrong_model_is_refused(monkeypatch):
    from edgeprune.channels.rebuild import slicing

    plan = plan_channels(residual_net("keras"), pruning_ratio=0.5)
    assert plan.verify().passed

    def wrong(graph, kept_mask, build=slicing.rebuild):
        model = build(graph, kept_mask)
        model.get_layer("hidden").bias.assign(np.ones(model.get_layer("hidden").units))
        return model

    monkeypatch.setattr(slicing, "rebuild", wrong)
    assert not plan.verify().passed
    with pytest.raises(RuntimeError, match="NOT equal"):
        plan.apply()
    plan.apply(verify=False)


def test_prune_channels_is_plan_and_apply(flavor):
    model = residual_net(flavor)
    smaller = prune_channels(model, target_macs=0.4, round_to=4)
    planned = plan_channels(model, target_macs=0.4, round_to=4).apply()
    for a, b in zip(smaller.weights, planned.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(
    ("ignore", "frozen"),
    [
        ("stem", {"stem"}),
        (["b_project"], {"stem"}),
        ("stem_norm", {"stem"}),
        ("a_depthwise", {"a_expand"}),
        (["?_expand"], {"a_expand", "b_expand"}),
        (lambda model: model.get_layer("hidden"), {"hidden"}),
        (lambda model: [model.get_layer("hidden"), "a_*"], {"hidden", "a_expand", "stem"}),
    ],
)
def test_what_is_ignored_keeps_all_its_channels(ignore, frozen):
    model = residual_net("keras")
    plan = plan_channels(model, pruning_ratio=0.5, ignore=ignore(model) if callable(ignore) else ignore)
    ignored = {name for name, reason in plan.frozen.items() if reason == "ignored"}
    assert ignored & {group.name for group in plan.groups} == frozen
    assert ignored >= {layer for group in plan.groups if group.name in frozen for layer in group.layers}
    assert all(plan.kept_mask[group.classes].all() for group in plan.groups if group.name in frozen)


@pytest.mark.above_flavor
def test_a_nested_model_stands_for_its_layers(flavor):
    model = nested_net(flavor)
    plan = plan_channels(model, pruning_ratio=0.5, ignore=model.get_layer("inner"))
    assert left(plan) == {"after": 3}
    plan = plan_channels(model, pruning_ratio=0.5, ignore="inner/*")
    assert left(plan) == {"after": 3}


def test_ratios_by_name_and_pattern():
    model = residual_net("keras")
    plan = plan_channels(model, ratios={"a_expand": 0.75, "?_expand": 0.25})
    assert left(plan) == {"stem": 16, "a_expand": 6, "b_expand": 18, "hidden": 20}
    assert plan.target is None
    plan = plan_channels(model, ratios={"*": 0.5})
    assert left(plan) == {"stem": 8, "a_expand": 12, "b_expand": 12, "hidden": 10}
    plan = plan_channels(model, target_macs=0.6, ratios={"hidden": 0.5})
    assert left(plan)["hidden"] == 10
    assert plan.macs.kept == pytest.approx(0.6, rel=0.01)


@pytest.mark.above_flavor
def test_a_plan_can_be_edited(flavor):
    plan = plan_channels(residual_net(flavor), pruning_ratio=0.25, scope="local")
    whole = plan.keep("stem")
    assert left(whole)["stem"] == 16 and left(plan)["stem"] == 12
    edited = whole.drop("stem", [0, 5]).drop("hidden", range(10)).keep("hidden", 3)
    stem = edited.groups[0]
    np.testing.assert_array_equal(np.flatnonzero(~edited.kept_mask[stem.classes]), [0, 5])
    kept = np.flatnonzero(edited.kept_mask[edited.groups[3].classes])
    assert 3 in kept and not set(kept) & {0, 1, 2, 4, 5, 6, 7, 8, 9}
    assert edited.target is None
    assert edited.verify().passed
    assert edited.params.after == count_parameters(edited.apply()).total


@pytest.mark.above_flavor
def test_json_and_back(flavor):
    model = residual_net(flavor)
    plan = plan_channels(model, target_macs=0.5, ignore="hidden", round_to=4)
    copy = residual_net(flavor)
    again = ChannelPlan.from_json(copy, plan.to_json())
    np.testing.assert_array_equal(again.kept_mask, plan.kept_mask)
    assert again.target == plan.target and again.frozen == plan.frozen and str(again) == str(plan)
    assert again.model is copy
    assert ChannelPlan.from_json(model, plan.keep("stem").to_json()).target is None


def test_json_for_another_model_or_no_plan_at_all():
    text = plan_channels(residual_net("keras"), pruning_ratio=0.5).to_json()
    with pytest.raises(ValueError, match=r"weight stem/kernel of 'residual' has shape \(3, 3, 3, 12\)"):
        ChannelPlan.from_json(residual_net("keras", width=12), text)
    with pytest.raises(ValueError, match="for a model with 21 weights; 'outer' has 8"):
        ChannelPlan.from_json(nested_net("keras"), text)
    for broken in ("{", "[]", "{}"):
        with pytest.raises(ValueError, match="no channel plan"):
            ChannelPlan.from_json(residual_net("keras"), broken)
    content = json.loads(text)
    for change, words in [
        ({"format": 99}, "format 99"),
        ({"groups": {"stam": {"channels": 16, "kept": [1]}}}, "no group 'stam'.*'stem'"),
        ({"groups": {"stem": {"channels": 15, "kept": [1]}}}, "has 16 channels, and the plan is for 15"),
        ({"groups": {"head": {"channels": 4, "kept": [1]}}}, "is frozen"),
    ]:
        with pytest.raises(ValueError, match=words):
            ChannelPlan.from_json(residual_net("keras"), json.dumps({**content, **change}))


def test_it_prints_as_a_table(capsys):
    plan = plan_channels(residual_net("keras"), pruning_ratio=0.5, scope="local", ignore="a_expand")
    plan.summary()
    lines = capsys.readouterr().out.splitlines()
    stem = next(line for line in lines if line.startswith("stem"))
    saved = plan.macs.before - count_macs(plan.keep("b_expand").keep("hidden").apply()).total
    assert stem.split() == ["stem", "a_project,", "b_project", "16", "8", f"{saved:,}"]
    assert any(line.startswith("MACs") and f"{plan.macs.after:,}" in line for line in lines)
    assert "frozen: a_expand, a_depthwise (ignored)" in lines
    assert any("channels removed: 0.5000" in line for line in lines)


def test_the_seed_decides_a_random_plan():
    model = residual_net("keras")
    first, again, other = (
        plan_channels(model, pruning_ratio=0.5, importance="random", seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.kept_mask, again.kept_mask)
    assert not np.array_equal(first.kept_mask, other.kept_mask)


def test_groups_without_a_score_stay_whole():
    plan = plan_channels(residual_net("keras"), pruning_ratio=0.5, importance="bn_scale")
    assert left(plan) == {"stem": 8}
    assert "bn_scale has no scores" in plan.frozen["hidden"]


def test_global_magnitudes_are_relative_to_their_group():
    model = residual_net("keras")
    kernel = model.get_layer("hidden").kernel
    kernel.assign(np.asarray(kernel) * 1e-3)
    model.get_layer("head").kernel.assign(np.asarray(model.get_layer("head").kernel) * 1e-3)
    assert left(plan_channels(model, pruning_ratio=0.3))["hidden"] > 10
    by_hand = plan_channels(model, pruning_ratio=0.3, importance=lambda group: np.full(group.size, float(group.size)))
    assert left(by_hand)["hidden"] > left(by_hand)["stem"] == 2  # a function's scores are ranked as they are


@pytest.mark.parametrize("importance", ["taylor", "fisher", "activation", "reconstruction"])
@pytest.mark.above_flavor
def test_importance_on_data(flavor, importance):
    model = residual_net(flavor)
    rng = np.random.default_rng(0)
    data = rng.standard_normal((16, 8, 8, 3)).astype("float32"), rng.standard_normal((16, 4)).astype("float32")
    plan = plan_channels(model, target_macs=0.5, importance=importance, data=data, loss="mse")
    assert plan.verify().passed
    assert plan.macs.kept == pytest.approx(0.5, rel=0.01)


@pytest.mark.above_flavor
def test_tiles_of_depthwise_channels_are_full(flavor):
    plan = plan_channels(residual_net(flavor), target_macs=0.7, round_to="tile")
    assert {left(plan)["a_expand"], left(plan)["b_expand"]} <= {16, 24}  # 24 is all of them
    assert left(plan)["stem"] in (8, 16) and left(plan)["hidden"] in (8, 16, 20)
    assert min(left(plan)["a_expand"], left(plan)["b_expand"]) == 16 or left(plan)["stem"] == 8


@pytest.mark.above_flavor
def test_units_and_heads_are_rounded_as_the_channels_they_give(flavor):
    keras = flavors.keras_module(flavor)
    inputs = keras.Input((6, 16))
    x = keras.layers.MultiHeadAttention(4, 6, name="attention")(inputs, inputs)
    x = keras.layers.LSTM(24, return_sequences=True, name="lstm")(x)
    x = keras.layers.GRU(12, name="gru")(x)
    plan = plan_channels(keras.Model(inputs, keras.layers.Dense(2)(x)), pruning_ratio=0.4, scope="local", round_to=4)
    widths = left(plan)
    assert widths["attention"] == 2  # heads of 6 channels: 12 channels, as 1 or 3 heads are no multiple of 4
    assert widths["lstm"] in (12, 16) and widths["gru"] == 8
    assert plan.verify().passed


@pytest.mark.parametrize("importance", ["l2", "taylor", "activation", "reconstruction"])
def test_a_subclassed_model(importance):
    import keras

    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.first, self.head = keras.layers.Dense(8, "relu", name="first"), keras.layers.Dense(2, name="head")

        def call(self, x):
            return self.head(keras.ops.square(self.first(x)))

    model = Net()
    x = np.random.default_rng(0).standard_normal((12, 4)).astype("float32")
    model(x)
    plan = plan_channels(model, pruning_ratio=0.5, importance=importance, data=(x, np.zeros((12, 2))), loss="mse")
    assert left(plan) == {"first": 4}
    assert plan.verify().passed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "Pass one or more of pruning_ratio=, target_macs="),
        (dict(pruning_ratio={"stem": 0.5}), "pass ratios="),
        (dict(pruning_ratio=0.5, ignore="stam"), "belong to 'stam'. Did you mean 'stem'"),
        (dict(pruning_ratio=0.5, ignore="stem_relu"), "No channels"),
        (dict(pruning_ratio=0.5, ignore=[3]), "Expected a layer"),
        (dict(ratios={"hiden": 0.5}), "Did you mean 'hidden'"),
        (dict(ratios={"hidden": 0.95}), "must be between 0 and max_ratio=0.9"),
        (dict(ratios={"head": 0.5}), "Nothing can be removed from 'head': output"),
        (dict(pruning_ratio=0.5, ignore="*"), "No channels of model 'residual' can be removed"),
        (dict(pruning_ratio=0.5, importance="taylor"), "measured on data"),
        (dict(pruning_ratio=0.5, importance=["l1"]), "importance must be a function of a group or one of"),
        (dict(pruning_ratio=0.5, scope=["local"]), "scope must be one of"),
        (dict(pruning_ratio=0.5, steps=0), "steps must be a whole number of 1 or more; got 0"),
        (dict(pruning_ratio=0.5, batch_size=1.5), "batch_size must be a whole number of 1 or more; got 1.5"),
        (dict(pruning_ratio=0.5, seed=-1), "seed must be a whole number of 0 or more; got -1"),
    ],
)
def test_errors(arguments, words):
    with pytest.raises(ValueError, match=words):
        plan_channels(residual_net("keras"), **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(pruning_ratio="half"), "pruning_ratio must be a number; got 'half'"),
        (dict(pruning_ratio=0.5, importance="taylor", data="images"), "data must be .* got str"),
        (dict(target_macs=True), "target_macs must be a number; got True"),
        (dict(pruning_ratio=0.5, min_channels="2"), "min_channels must be a number"),
        (dict(pruning_ratio=0.5, max_ratio=None), "max_ratio must be a number"),
        (dict(pruning_ratio=0.5, round_to=None), "round_to must be a number; got None"),
        (dict(pruning_ratio=0.5, round_to=lambda group: "8"), "round_to .* must be a number; got '8'"),
        (dict(pruning_ratio=0.5, ignore=3), "ignore must be layers, or names"),
        (dict(ratios=[0.5]), "ratios must be a dict"),
        (dict(ratios={"hidden": "0.5"}), "The ratio of 'hidden' must be a number"),
        (dict(pruning_ratio=0.5, ratios=0), "ratios must be a dict"),
        (dict(pruning_ratio=0.5, seed="x"), "seed must be a number"),
        (
            dict(pruning_ratio=0.5, importance="taylor", data=np.ones((2, 2)), loss=1j),
            "loss must be a Keras loss or its name",
        ),
    ],
)
def test_arguments_of_a_wrong_type(arguments, words):
    with pytest.raises(TypeError, match=words):
        plan_channels(residual_net("keras"), **arguments)


def test_no_model_is_told():
    with pytest.raises(TypeError, match="Expected a Keras model, got int"):
        plan_channels(3, pruning_ratio=0.5)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda plan: plan.keep("stam"), "no group 'stam'. Did you mean 'stem'"),
        (lambda plan: plan.drop("stem", 16), "channels 0 to 15"),
        (lambda plan: plan.keep("stem", [-1]), "channels 0 to 15"),
        (lambda plan: plan.drop("head", 0), "is frozen: output"),
        (lambda plan: plan.drop("stem", range(16)), "no channels left"),
    ],
)
def test_errors_of_editing(edit, words):
    with pytest.raises(ValueError, match=words):
        edit(plan_channels(residual_net("keras"), pruning_ratio=0.5))


def test_errors_of_the_wrong_type():
    plan = plan_channels(residual_net("keras"), pruning_ratio=0.5)
    for call in (lambda: plan.drop(3, 0), lambda: plan.keep(None), lambda: plan.verify(seed="x")):
        with pytest.raises(TypeError):
            call()
    for model in ("x", None, 3):
        with pytest.raises(TypeError, match="Expected a Keras model, got"):
            ChannelPlan.from_json(model, plan.to_json())
    with pytest.raises(TypeError, match="A rule is for a class of layers; got 3"):
        rule(3)


@functools.cache
def small_net():
    layers = flavors.keras_module("keras").layers
    model = flavors.keras_module("keras").Sequential([layers.Input((3,)), layers.Dense(4, name="a"), layers.Dense(2)])
    return model, plan_channels(model, pruning_ratio=0.5).to_json()


WAYS = [
    *(("format",), ("model",), ("weights",), ("weights", 0), ("frozen",), ("target",)),
    *(("target", "kind"), ("target", "requested"), ("target", "achieved")),
    *(("groups",), ("groups", "a"), ("groups", "a", "channels"), ("groups", "a", "kept")),
]
NUMBERS = st.none() | st.integers(-1, 5)
VALUES = st.one_of(
    *(NUMBERS, st.booleans(), st.floats(), st.text(max_size=3)),
    *(st.lists(NUMBERS, max_size=2), st.dictionaries(st.text(max_size=2), NUMBERS, max_size=2)),
)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(WAYS), VALUES)
def test_a_stored_plan_with_any_value_in_any_place_is_read_or_refused_in_one_line(way, value):
    model, text = small_net()
    content = place = json.loads(text)
    for key in way[:-1]:
        place = place[key]
    place[way[-1]] = value
    try:
        read = ChannelPlan.from_json(model, json.dumps(content))
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert str(read)


@pytest.mark.above_flavor
def test_weights_that_are_no_numbers_are_named(flavor):
    model = nested_net(flavor)
    kernel = next(weight for weight in model.weights if "kernel" in weight.name)
    kernel.assign(np.full(kernel.shape, np.nan, np.float32))
    with pytest.raises(ValueError, match="kernel holds NaN or infinite values"):
        plan_channels(model, pruning_ratio=0.5)


@pytest.mark.above_flavor
def test_what_the_groups_save_adds_up_to_the_whole(flavor):
    """Two convolutions in a row share what both save; the rows, with that one, sum to the model's MACs."""
    keras = flavors.keras_module(flavor)
    layers = [keras.Input((8, 8, 3)), *(keras.layers.Conv2D(8, 3, name=f"conv{n}") for n in range(3))]
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(2)])
    plan = plan_channels(model, pruning_ratio=0.5)
    saved = {
        line.rpartition("  ")[0].split("  ")[0]: int(line.split()[-1].replace(",", ""))
        for line in str(plan).splitlines()
        if line.startswith(("conv", "shared", "total"))
    }
    total = saved.pop("total")
    assert saved["shared by adjacent groups"] < 0
    assert sum(saved.values()) == total == count_macs(model).total - count_macs(plan.apply()).total
