"""Channels are removed from a quantization-aware model, which stays one; pruning in the same fit."""

import numpy as np
import pytest
from nets.quantized_nets import branched, images

import edgeprune as ep
from edgeprune.quantization.fake_quantize import fake_quantizers, quantized_layers

X = images()
Y = np.arange(len(X)) % 5


def aware_model(flavor):
    """A net of which some weights are zero, and stay so."""
    model = branched(flavor)
    kernel = model.get_layer("left").kernel
    kernel.assign(np.where(np.random.default_rng(0).random(kernel.shape) < 0.3, 0, kernel))
    return ep.quantize_aware(model, "int4", calibration=X)


def ranges(model):
    return {layer.name: tuple(float(np.asarray(end)) for end in layer.range) for layer in fake_quantizers(model)}


def test_the_smaller_model_is_quantization_aware(flavor):
    model = aware_model(flavor)
    plan = ep.plan_channels(model, pruning_ratio=0.5)
    smaller = plan.apply()  # proven
    assert ranges(smaller) == ranges(model)
    old, new = ({one.layer.name: one for one in quantized_layers(each)} for each in (model, smaller))
    kept = {id(weight): kept for weight, kept in zip(model.weights, plan.kept, strict=True)}
    for name, wrapper in old.items():
        for kernel in wrapper.kernel_axes:
            variable, cut = getattr(wrapper.layer, kernel), np.array(getattr(new[name].layer, kernel))
            expected = np.array(variable)
            for axis, indices in kept[id(variable)].items():
                expected = np.take(expected, indices, axis)
            np.testing.assert_array_equal(cut, expected)
            assert new[name].num_bits == 4
    masked = new["left"]
    np.testing.assert_array_equal(np.array(masked.kernel_mask) != 0, np.array(masked.layer.kernel) != 0)
    assert ep.count_macs(smaller).total == plan.macs.after < plan.macs.before == ep.count_macs(model).total


@pytest.mark.above_flavor
def test_all_channels_kept_computes_the_same(flavor):
    model = aware_model(flavor)
    same = ep.plan_channels(model, pruning_ratio=0.0).apply()
    np.testing.assert_array_equal(same.predict(X, verbose=0), model.predict(X, verbose=0))


def test_channels_weights_and_steps_in_one_fit(flavor, tmp_path):
    """Channels and weights are removed while the model learns to be rounded."""
    model = ep.quantize_aware(branched(flavor), calibration=X)
    model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.9, frequency=1))
    channels = ep.ChannelPruning(ep.PolynomialDecay(0.0, 0.5, frequency=1), pruning_ratio=0.4)
    callbacks = [channels, ep.UpdatePruningStep()]
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=callbacks)
    smaller = ep.strip_pruning(model)
    hidden = next(one for one in quantized_layers(smaller) if one.layer.name == "hidden")
    zeros = np.array(hidden.layer.kernel) == 0
    assert 0.5 < zeros.mean() < 1 and zeros.shape[1] < 12
    assert not ep.is_pruned(smaller) and len(fake_quantizers(smaller)) == len(fake_quantizers(model))
    np.testing.assert_allclose(smaller.predict(X, verbose=0), model.predict(X, verbose=0), atol=0.02)
    result = ep.export_tflite(smaller, tmp_path / "m.tflite", "int8", X)
    assert result.verification.passed and result.verification.zeros_kept in (None, 1.0)
    plain = ep.strip_quantization(model)
    assert [layer.name for layer in plain.layers] == [layer.name for layer in branched(flavor).layers]
    assert plain.count_params() < branched(flavor).count_params()


@pytest.mark.above_flavor
def test_the_layers_that_round_are_not_listed_as_unpruned(flavor):
    model = ep.prune_low_magnitude(ep.quantize_aware(branched(flavor), calibration=X), ep.ConstantSparsity(0.5, 0))
    report = ep.sparsity_report(model)
    pruned = {row.layer.rpartition("/")[2] for row in report.rows if row.weight}
    assert {name.removeprefix("quantized_") for name in pruned} == {"stem", "point", "left", "right", "hidden", "head"}
    assert {name.rpartition("/")[2] for name in report.skipped} == {"stem_bn", "depth", "depth_bn", "point_bn"}


@pytest.mark.above_flavor
def test_what_comes_before(flavor):
    with pytest.raises(ValueError, match="equalize the float model, and call quantize_aware on the result"):
        ep.equalize(ep.quantize_aware(branched(flavor)))
    with pytest.raises(ValueError, match="reconstruct the float model, and call quantize_aware on what is left"):
        ep.prune_channels(ep.quantize_aware(branched(flavor)), pruning_ratio=0.5, reconstruct=X)
