"""Plans within limits. Time is a made-up cost of operators, so that what is predicted can be counted in the file."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.channels.plan import limited
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.channels.plan.importance import class_scores, relative
from edgeprune.channels.plan.limits import Limits, parse_bytes, parse_time
from edgeprune.channels.plan.lines import Lines
from edgeprune.latency.predicted import CostModel
from edgeprune.latency.table import LatencyTable


class StairCosts:
    """Products of an operator's output and its weights, of outputs that come by eight."""

    unit = "ms"
    source = "made up"
    estimated = False

    def of_nothing(self):
        return 0.0

    def of_operators(self, template, wanted):
        return np.array([self.cost(template, place, counts) for place, counts in wanted])

    def cost(self, template, place, counts):
        operator = template.operators[place]
        out = template.shape(operator.outputs[0], counts)
        weights = [
            template.shape(n, counts) for n in operator.inputs if n >= 0 and template.tensors[n].data is not None
        ]
        inner = math.prod(weights[0]) // out[-1] if weights and len(weights[0]) > 1 else 1
        return 1e-4 * math.prod(out[:-1]) * -(-out[-1] // 8) * 8 * inner

    def of_model(self, template, counts):
        return None


class WholeCosts(StairCosts):
    """Of a whole file half as much again for every halving: what operators alone do not say."""

    def of_model(self, template, counts):
        def whole(row):
            return sum(self.cost(template, place, row) for place in range(len(template.operators)))

        return np.array([whole(row) ** 0.8 for row in counts])


@pytest.fixture
def costs(monkeypatch):
    found = StairCosts()
    monkeypatch.setattr(limited, "costs_of", lambda limits: found)
    return found


def net(flavor, width=32):
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((16, 16, 3))
    for number in range(2):
        x = layers.Conv2D(width, 3, padding="same", activation="relu", name=f"conv_{number}")(x)
        x = layers.DepthwiseConv2D(3, strides=2, padding="same", name=f"depthwise_{number}")(x)
    x = layers.Conv2D(width, 1, name="conv_2")(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(x)))


@pytest.mark.above_flavor
def test_a_plan_holds_its_time_and_stands_on_the_stairs(flavor, costs):
    model = net(flavor)
    plan = ep.plan_channels(model, target_latency=0.5)
    assert plan.latency.predicted <= 0.5 * plan.latency.before
    assert plan.latency.kept > 0.4  # and little of it is left unused
    assert plan.target.kind == "target_latency" and plan.target.requested == 0.5
    assert plan.target.achieved == plan.latency.kept
    assert [group.after % 8 for group in plan.planned] == [0, 0, 0]
    assert plan.verify().passed
    text = str(plan)
    assert "predicted for phone in float32 (requested 0.5; made up)" in text and "time kept: 0." in text
    again = ChannelPlan.from_json(model, plan.to_json())
    assert again.target == plan.target


def test_it_keeps_more_than_plans_by_macs_of_the_same_time(costs, monkeypatch):
    model, models = net("keras"), []
    of = CostModel.of
    monkeypatch.setattr(CostModel, "of", lambda *args: models.append(of(*args)) or models[0])
    plan = ep.plan_channels(model, target_latency=0.5)
    scores = relative(plan.graph, class_scores(plan.graph, "l2", None, 0))
    lines, (priced,) = Lines.of(plan.graph), models
    kept = scores[plan.kept_mask].sum()
    assert priced.predicted(lines.counts(plan.kept_mask)) == pytest.approx(plan.latency.predicted)
    for round_to in (1, 4, 8):
        for share in np.arange(0.3, 0.7, 0.04):
            other = ep.plan_channels(model, target_macs=share, round_to=round_to).kept_mask
            if priced.predicted(lines.counts(other)) <= plan.latency.requested:
                assert kept >= scores[other].sum() - 1e-6


def test_what_operators_do_not_say_is_made_up_for(monkeypatch):
    monkeypatch.setattr(limited, "costs_of", lambda limits: WholeCosts())
    plan = ep.plan_channels(net("keras"), target_latency=0.5)
    assert plan.latency.measured is not None and abs(plan.latency.kept - 0.5) < 0.08
    assert plan.latency.after == plan.latency.measured
    assert "measured for phone" in str(plan)


@pytest.mark.above_flavor
def test_limits_hold_together(flavor, costs):
    model = net(flavor)
    plan = ep.plan_channels(model, target_latency=0.7, target_macs=0.4, target_params=0.5, pruning_ratio=0.3)
    assert plan.latency.kept <= 0.7 and plan.macs.kept <= 0.4 and plan.params.kept <= 0.5
    assert plan.channels.kept <= 0.7
    reached = {limit.kind: limit.reached for limit in plan.limits}
    assert reached["target_macs"] == pytest.approx(plan.macs.kept, abs=2e-3)
    assert reached["target_params"] == pytest.approx(plan.params.kept, abs=2e-3)
    assert reached["pruning_ratio"] == pytest.approx(1 - plan.channels.kept)
    assert "MACs kept: 0." in str(plan) and "(requested at most 0.4)" in str(plan)
    assert "channels removed: 0." in str(plan) and "(requested at least 0.3)" in str(plan)


@pytest.mark.parametrize(("flavor", "quantization"), [("keras", "int8"), ("tf_keras", None)])
def test_bytes_of_the_file_and_of_the_activations(flavor, quantization, tmp_path):
    model = net(flavor)
    x = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
    whole = ep.export_tflite(model, tmp_path / "whole.tflite", quantization, x if quantization else None)
    dtype = quantization or "float32"
    memory = ep.measure.activation_memory(model, dtype).planned
    flash, ram = round(0.6 * whole.bytes), round(0.6 * memory)
    plan = ep.plan_channels(model, max_flash=flash, max_ram=ram, quantization=quantization)
    smaller = plan.apply()
    export = ep.export_tflite(smaller, tmp_path / "small.tflite", quantization, x if quantization else None)
    assert 0.5 * whole.bytes < export.bytes <= 1.02 * flash
    assert ep.measure.activation_memory(smaller, dtype).planned <= ram
    reached = {limit.kind: limit.reached for limit in plan.limits}
    # Zero points of groups that happen to be equally wide are in the file once, which a plan does not count on.
    assert reached["max_ram"] <= ram and 0.98 * export.bytes < reached["max_flash"] < 1.05 * export.bytes
    assert plan.latency is None and plan.target is None
    assert f"(requested at most {flash:,})" in str(plan)


def test_the_arena_of_a_microcontroller(tmp_path):
    model = net("keras")
    before = ep.measure.activation_memory(model, "int8").arena
    plan = ep.plan_channels(model, max_ram=round(0.5 * before), target="cortex-m", quantization="int8")
    assert ep.measure.activation_memory(plan.apply(), "int8").arena <= 0.5 * before
    with pytest.raises(ValueError, match="max_ram cannot be held: the interpreter needs .* bytes besides"):
        ep.plan_channels(model, max_ram=100, target="cortex-m", quantization="int8")
    with pytest.raises(ValueError, match="max_ram cannot be held: .* times as much is left"):
        ep.plan_channels(model, max_ram=1000)


@pytest.mark.above_flavor
def test_fractions_together_need_no_file(flavor, monkeypatch):
    monkeypatch.setattr(limited, "converted", lambda *args: pytest.fail("nothing is to be converted"))
    plan = ep.plan_channels(net(flavor), target_macs=0.6, target_params=0.4)
    assert plan.macs.kept <= 0.6 and plan.params.kept <= 0.4
    assert plan.target is None and {limit.kind for limit in plan.limits} == {"target_macs", "target_params"}


def test_a_time_in_milliseconds(costs):
    model = net("keras")
    before = ep.plan_channels(model, target_latency=0.9).latency.before
    plan = ep.plan_channels(model, target_latency=f"{before / 2:.6f} ms")
    assert plan.latency.predicted <= before / 2 and plan.latency.requested == pytest.approx(before / 2, rel=1e-4)
    # A model that is fast enough as it is stays as it is.
    plan = ep.plan_channels(model, target_latency=f"{2 * before:.6f} ms")
    assert plan.kept_mask.all() and plan.target.requested == 1.0


def test_what_is_set_by_hand_stays(costs):
    plan = ep.plan_channels(
        net("keras"), target_latency=0.6, ratios={"conv_0": 0.75}, ignore=["conv_1"], round_to=4, min_channels=8
    )
    left = {row.name: row.after for row in plan.planned}
    assert left["conv_0"] == 8 and "conv_1" not in left and left["conv_2"] % 4 == 0
    assert plan.latency.kept <= 0.6


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({}, ValueError, "Pass one or more of pruning_ratio=, target_macs=, target_params=, target_latency="),
        ({"target_latency": 1.5}, ValueError, "target_latency is the fraction to keep, above 0 and at most 1; got 1.5"),
        ({"target_latency": "fast"}, ValueError, "must be a fraction, a time such as '4 ms', or '2e6 cycles'"),
        ({"target_latency": "0 ms"}, ValueError, "must be a fraction, a time such as '4 ms'"),
        ({"target_latency": [1]}, TypeError, "target_latency must be a number"),
        ({"max_ram": 0}, ValueError, "max_ram must be a whole number of 1 or more; got 0"),
        ({"max_flash": "2 GBit"}, ValueError, "max_flash must be a number of bytes, or a text such as '256 kB'"),
        ({"max_flash": []}, TypeError, "max_flash must be a number"),
        ({"target_latency": 0.5, "target": "pager"}, ValueError, "There is no target 'pager'"),
        ({"target_latency": 0.5, "quantization": "int7"}, ValueError, "quantization must be one of None, 'dynamic'"),
        ({"target_latency": 0.5, "target": "ethos-u55-128"}, ValueError, "does not run models in float32: pass quant"),
        ({"target_latency": 0.5, "num_threads": 0}, ValueError, "num_threads must be a whole number of 1 or more"),
        ({"target_latency": 0.5, "scope": "local"}, ValueError, "chosen together: pass scope='global'; got 'local'"),
        ({"target_macs": {"conv_0": 0.5}, "max_ram": 5}, ValueError, "target_macs= must be one number"),
        ({"target_latency": 0.5, "ignore": ["*"]}, ValueError, "No channels of model .* can be removed"),
        ({"target_latency": 0.001}, ValueError, "target_latency cannot be held: .* times as much is left"),
        ({"target_macs": 0.001, "target_params": 0.9}, ValueError, "target_macs cannot be held: .* Raise max_ratio"),
        ({"target_latency": 0.5, "latency_table": "none.csv"}, FileNotFoundError, "No table of latencies at none.csv"),
    ],
)
def test_bad_limits(settings, error, message, costs, monkeypatch, request):
    if "latency_table" in settings:
        monkeypatch.undo()
    with pytest.raises(error, match=message):
        ep.plan_channels(net("keras"), **settings)


def test_a_table_that_lacks_operators_says_so():
    with pytest.raises(ValueError, match="The table of my phone lacks .* write files for this model with"):
        ep.plan_channels(net("keras"), target_latency=0.5, latency_table=LatencyTable({"x": 1.0}, "my phone"))


def test_units():
    assert parse_time("500 us") == (0.5, "ms") and parse_time("2 s") == (2000.0, "ms")
    assert parse_time(" 1e6 cycles ") == (1e6, "cycles") and parse_time(0.25) is None
    assert parse_bytes("max_ram", "1.5 kB") == 1500 and parse_bytes("max_ram", "2 MiB") == 2 << 20
    assert parse_bytes("max_ram", "12") == 12 and parse_bytes("max_ram", None) is None
    assert dataclasses.replace(Limits(target_macs=0.5), max_ram=5).alone is None
