"""Bits by layer: the knapsack against brute force, the plan within its size, its file of that size."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets.quantized_nets import branched, chain, images

import edgeprune as ep
from edgeprune.conversion.plain import converted
from edgeprune.latency.template import FileTemplate
from edgeprune.quantization import planning
from edgeprune.quantization.bit_choice import NothingFitsError, best_choice
from edgeprune.quantization.layer_choices import LayerChoices
from edgeprune.tflite.four_bits import with_four_bit_weights


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 1), st.floats(0.05, 1))
def test_the_choice_is_the_best_of_all_within_two_limits(seed, bytes_share, time_share):
    rng = np.random.default_rng(seed)
    errors = np.stack([rng.exponential(size=7) ** 2, np.zeros(7)], axis=1)
    costs = np.stack([np.stack([np.zeros(7), rng.integers(1, 2000, 7)], axis=1), rng.uniform(1, 9, (7, 2))])
    most = costs.max(axis=2).sum(axis=1) * [bytes_share, time_share]
    rows = np.arange(7)
    choices = [np.array(one) for one in itertools.product([0, 1], repeat=7)]
    allowed = [one for one in choices if (costs[:, rows, one].sum(axis=1) <= most).all()]
    if not allowed:
        with pytest.raises(NothingFitsError):
            best_choice(errors, costs, most)
        return
    found = best_choice(errors, costs, most)
    assert (costs[:, rows, found].sum(axis=1) <= most * (1 + 1e-9)).all()
    assert errors[rows, found].sum() <= 1.0001 * min(errors[rows, one].sum() for one in allowed) + 1e-12


def test_the_choice_for_many_layers_is_near_what_fractions_of_layers_would_gain():
    rng = np.random.default_rng(0)
    errors, sizes = rng.exponential(size=120), rng.integers(1, 2000, 120)
    most = sizes.sum() / 2
    found = best_choice(
        np.stack([errors, np.zeros(120)], axis=1), np.stack([np.zeros(120), sizes], axis=1)[None], np.array([most])
    )
    order = np.argsort(-errors / sizes)
    whole = np.cumsum(sizes[order]) <= most
    at_most = errors[order][whole].sum() + errors[order][~whole][0]
    assert errors[found == 1].sum() >= 0.99 * at_most and sizes[found == 1].sum() <= most


class SlowConvolutions:
    """Costs of operators: one each, of convolutions with weights of 4 bits three."""

    def __init__(self, table=None):
        pass

    def of_nothing(self):
        return 0.5

    def of_operators(self, template, wanted):
        keys = [template.key(*one) for one in wanted]
        return np.array([3.5 if "CONV" in key and "int4" in key else 1.5 for key in keys])

    def of_model(self, template, counts):
        return None


def test_a_limit_on_the_time_keeps_layers_that_4_bits_make_slower(planned, monkeypatch):
    model, x, _ = planned
    monkeypatch.setattr(planning, "MeasuredCosts", SlowConvolutions)
    plan = ep.plan_quantization(model, x, max_size=0.99, max_latency=1.0)
    bits = {layer.name: layer.bits for layer in plan.layers}
    convolutions = {"stem", "depth", "point", "left", "right"}
    assert all(bits[name] == 8 for name in convolutions) and 4 in (bits["hidden"], bits["head"])
    four, eight = plan.latencies
    assert plan.latency == pytest.approx(eight) and plan.max_latency == eight
    assert four - eight == pytest.approx(2.0 * len(convolutions))
    assert "milliseconds" in str(plan) and f"at most {plan.max_latency:.3g} ms" in str(plan)
    refusal = f"max_latency, 9 ms, cannot be held{{0}}: the file takes {eight:.3g} ms .*, and {{1:.3g}} ms with"
    with pytest.raises(ValueError, match=refusal.format("", eight)):
        ep.plan_quantization(model, x, max_latency="9 ms")
    with pytest.raises(ValueError, match=refusal.format(" within max_size", four)):  # all have to have 4 bits
        ep.plan_quantization(model, x, max_latency="9 ms", max_size=plan.sizes[0])


class SlowerAlone(SlowConvolutions):
    """Operators of 8 bits that take twice as long alone as in their file, and others that take what they take alone."""

    def of_model(self, template, counts):
        keys = [template.key(place, counts[0]) for place in range(len(template.operators))]
        alone = self.of_operators(template, [(place, counts[0]) for place in range(len(keys))]) - self.of_nothing()
        return self.of_nothing() + np.array([sum(np.where(["int4" in key for key in keys], alone, alone / 2))])


def test_operators_add_up_to_both_files(planned, monkeypatch):
    """Ten operators, of which five are convolutions and two are dense."""
    model, x, _ = planned
    monkeypatch.setattr(planning, "MeasuredCosts", SlowerAlone)
    plan = ep.plan_quantization(model, x, max_latency="16 ms", max_size=0.96)
    files = [converted(model, "int8"), with_four_bit_weights(converted(model, "int8"), nearest=True)[0]]
    templates = [FileTemplate([file], np.zeros((1, 0), int)) for file in files]
    four, eight = (SlowerAlone().of_model(one, [np.zeros(0, int)])[0] for one in reversed(templates))
    assert plan.latencies == pytest.approx((four, eight))
    bits = {layer.name: layer.bits for layer in plan.layers}
    narrow = sum(bits[name] == 4 for name in ("stem", "depth", "point", "left", "right"))
    dense = sum(bits[name] == 4 for name in ("hidden", "head"))
    assert narrow and plan.latency == pytest.approx(eight + 2.5 * narrow + 0.5 * dense)


def with_biases():
    """A net without biases of zeros, which a file has not, but has where they are solved for."""
    model = branched("keras")
    for name in ("left", "right", "hidden", "head"):
        bias = model.get_layer(name).bias
        bias.assign(np.random.default_rng(0).normal(size=bias.shape) / 10)
    return model


@pytest.fixture(scope="module")
def planned():
    model, x = with_biases(), images()
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
    assert values["layers"][0].keys() == {"name", "weights", "bits", "added_error", "removed_error"}


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
    for wrong in (0, "4 cycles", "fast"):
        with pytest.raises(ValueError, match="max_latency must be a time such as '4 ms'"):
            ep.plan_quantization(model, x, max_latency=wrong)
    with pytest.raises(ValueError, match="max_size must be a number of bytes, or a text such as '256 kB'"):
        ep.plan_quantization(model, x, max_size="small")


@pytest.fixture(scope="module")
def broken():
    """A dense layer in which a weight of an input that is always zero leaves the others no steps."""
    model, x = with_biases(), images()
    hidden, head = model.get_layer("hidden"), model.get_layer("head")
    kernel = np.array(head.kernel)
    kernel[0] = 1000.0
    head.kernel.assign(kernel)
    hidden.kernel.assign(np.array(hidden.kernel) * np.r_[0, np.ones(kernel.shape[0] - 1)])
    hidden.bias.assign(np.array(hidden.bias) * np.r_[0, np.ones(kernel.shape[0] - 1)])
    return model, x


def test_a_layer_that_breaks_in_integers_is_in_floats_where_the_target_computes_them(broken, tmp_path):
    model, x = broken
    plan = ep.plan_quantization(model, x, target="phone", max_size=1.1)
    assert plan.scheme.layer_bits["head"] == 32 and plan.error < 0.05 < plan.errors[1]
    assert "removed by floats" in str(plan) and "in floats: head" in str(plan)
    (head,) = [layer for layer in plan.layers if layer.name == "head"]
    assert head.bits == 32 and head.removed_error == max(layer.removed_error for layer in plan.layers) > 0
    noise = {}
    for name, scheme in (("integers", "int8"), ("planned", plan.scheme)):
        result = ep.export_tflite(model, tmp_path / f"{name}.tflite", scheme, x, calibration="min-max")
        noise[name] = result.verification.outputs[0].mean_error
    assert noise["planned"] < noise["integers"] / 3
    assert result.bytes == pytest.approx(plan.size, abs=700) and plan.size <= plan.max_size
    head_kernel = np.array(model.get_layer("head").kernel).T
    stored = [one for one in ep.read_tflite(result.path).weights if one.shape == head_kernel.shape]
    assert [one.dtype for one in stored] == ["float32"] and np.allclose(stored[0].values(), head_kernel)


@pytest.mark.above_flavor
def test_all_layers_may_be_in_floats(flavor, tmp_path):
    model, x = chain(flavor), images(8)
    choices = LayerChoices(model, {"image": x}, with_floats=True)
    every = np.full(len(choices.free), 2)
    assert choices.error(every) < choices.all_eight
    result = ep.export_tflite(model, tmp_path / "m.tflite", choices.scheme(every), x)
    assert result.verification.passed
    assert {one.dtype for one in ep.read_tflite(result.path).weights if len(one.shape) > 1} == {"float32"}


def test_targets_without_a_choice_are_refused(broken):
    model, x = broken
    assert 32 not in ep.plan_quantization(model, x).scheme.layer_bits.values()
    with pytest.raises(ValueError, match="'ethos-u55-128' neither reads weights of 4 bits nor computes floats"):
        ep.plan_quantization(model, x, target="ethos-u55-128")
    with pytest.raises(ValueError, match="'phone' computes floats, .* pass max_size instead of max_latency"):
        ep.plan_quantization(model, x, target="phone", max_latency=1.0)
