"""Bits by layer: the knapsack against brute force, the plan within its size, its file of that size."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets.quantized_nets import branched, chain, images

import edgeprune as ep
from edgeprune.quantization.planning import _kept


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_layers_that_keep_eight_bits_are_nearly_the_best_of_all_choices(seed, share):
    rng = np.random.default_rng(seed)
    added, saved = rng.exponential(size=7) ** 2, rng.integers(1, 2000, 7)
    spare = int(share * saved.sum())
    kept = _kept(added, saved, spare)
    assert saved[kept].sum() <= spare
    choices = (np.array(one) for one in itertools.product([False, True], repeat=7))
    best = max(added[one].sum() for one in choices if saved[one].sum() <= spare)
    assert added[kept].sum() >= 0.9 * best


@pytest.fixture(scope="module")
def planned():
    model, x = branched("keras"), images()
    for name in ("left", "right", "hidden", "head"):  # a file has no bias of zeros, and one that is solved for
        bias = model.get_layer(name).bias
        bias.assign(np.random.default_rng(0).normal(size=bias.shape) / 10)
    return model, x, ep.plan_quantization(model, x)


def test_the_plan_is_within_its_size_and_its_file_is_of_that_size(planned, tmp_path):
    model, x, plan = planned
    assert plan.sizes[0] <= plan.size <= plan.max_size < plan.sizes[1]
    assert plan.errors[1] < plan.error < plan.errors[0]
    assert {layer.name for layer in plan.layers if layer.bits == 8} == plan.scheme.layer_bits.keys() != set()
    result = ep.export_tflite(model, tmp_path / "m.tflite", plan.scheme, x, verify=False)
    assert result.bytes == pytest.approx(plan.size, abs=300)
    stored = {tensor.shape: tensor.dtype for tensor in ep.read_tflite(result.path).weights}
    bits = {layer.name: layer.bits for layer in plan.layers}
    assert stored[(8, 3, 3, 3)] == f"int{bits['stem']}" and stored[(12, 40)] == f"int{bits['hidden']}"


def test_the_plan_prints_and_its_scheme_survives_json(planned):
    _, _, plan = planned
    assert "error added by 4 bits" in str(plan) and "all 8 bits" in str(plan) and str(plan.scheme) in str(plan)
    values = plan.to_dict()
    assert ep.Scheme.from_dict(values["scheme"]) == plan.scheme
    assert values["layers"][0].keys() == {"name", "weights", "bits", "added_error"}


def test_training_rounds_each_layer_to_the_bits_of_the_plan(planned):
    model, x, plan = planned
    rounded = ep.quantization_report(ep.quantize_aware(model, plan.scheme, calibration=x)).kernels
    assert {one.layer: one.num_bits for one in rounded} == {one.name: one.bits for one in plan.layers}


@pytest.mark.above_flavor
def test_sizes_that_cannot_be_held_or_read_are_refused(flavor):
    model, x = chain(flavor), images(8)
    whole = ep.plan_quantization(model, x, max_size="1 MiB")
    assert {one.bits for one in whole.layers} == {8} and whole.error == whole.errors[1]
    with pytest.raises(
        ValueError, match=r"max_size=100 cannot be held: with all weights in 4 bits the file has [\d,]+"
    ):
        ep.plan_quantization(model, x, max_size=100)
    with pytest.raises(ValueError, match="max_size must be a number of bytes, or a text such as '256 kB'"):
        ep.plan_quantization(model, x, max_size="small")
