"""Plans for devices whose costs come from a compiler or an estimate, checked on the models that they come to."""

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.conversion.plain import converted
from edgeprune.latency.table import LatencyTable
from edgeprune.measure.vela import compile_for_npu


def net():
    keras = flavors.keras_module("keras")
    layers = keras.layers
    keras.utils.set_random_seed(2)
    x = inputs = keras.Input((24, 24, 3))
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="stem")(x)
    x = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu", name="wide")(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def test_cycles_of_an_npu(tmp_path):
    model = net()
    plan = ep.plan_channels(model, target_latency=0.5, target="ethos-u55-128", quantization="int8")
    cycles = []
    for name, made in (("before", model), ("after", plan.apply())):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(converted(made, "int8"))
        cycles.append(compile_for_npu(path, "ethos-u55-128", tmp_path / "compiled.tflite").cycles)
    assert plan.latency.before == pytest.approx(cycles[0], rel=0.01)
    assert plan.latency.after == pytest.approx(cycles[1], rel=0.02)
    assert 0.35 < cycles[1] / cycles[0] < 0.53
    assert plan.latency.unit == "cycles" and not plan.latency.estimated


def test_cycles_of_a_microcontroller_are_an_estimate():
    plan = ep.plan_channels(net(), target_latency=0.4, target="cortex-m", quantization="int8")
    assert plan.latency.kept <= 0.41 and plan.latency.estimated
    assert "estimated for cortex-m in int8" in str(plan)
    # Nearly all of its cycles are multiplications.
    assert plan.macs.kept == pytest.approx(plan.latency.kept, abs=0.1)
    again = ep.plan_channels(
        net(), target_latency=f"{plan.latency.requested:.0f} cycles", target="cortex-m", quantization="int8"
    )
    np.testing.assert_array_equal(again.kept_mask, plan.kept_mask)
    with pytest.raises(ValueError, match="target_latency='4 ms': the cost of cortex-m is in cycles"):
        ep.plan_channels(net(), target_latency="4 ms", target="cortex-m", quantization="int8")


def test_what_cannot_be_measured_here_needs_a_table():
    with pytest.raises(ValueError, match="time on phone-gpu cannot be measured here: pass latency_table="):
        ep.plan_channels(net(), target_latency=0.5, target="phone-gpu")
    with pytest.raises(ValueError, match="The table of board lacks"):
        ep.plan_channels(net(), target_latency=0.5, target="phone-gpu", latency_table=LatencyTable({"a": 1.0}, "board"))
