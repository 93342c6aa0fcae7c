"""The end of pruning of either kind, and of both at once, as a user meets it."""

import numpy as np
import pytest
from nets.pruned_nets import X, Y, compiled, dense_net, fit

import edgeprune as ep
from edgeprune import flavor as flavors


def channel_pruned(flavor):
    model = compiled(dense_net(flavor))
    pruning = ep.ChannelPruning(ep.PolynomialDecay(0.0, 0.5, frequency=2), target_macs=0.5)
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=[pruning])
    return model


def test_masked_channels_are_taken_out(flavor):
    model = channel_pruned(flavor)
    assert ep.is_pruned(model)
    smaller = ep.strip_pruning(model)
    assert not ep.is_pruned(smaller)
    assert ep.count_macs(smaller).total <= 0.51 * ep.count_macs(model).total
    np.testing.assert_allclose(smaller.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-5)


def test_export_takes_them_out_and_says_so(flavor, tmp_path):
    model = channel_pruned(flavor)
    result = ep.export_tflite(model, tmp_path / "model.tflite")
    assert any("masked channels gone" in note for note in result.notes)
    assert ep.count_macs_of_file(tmp_path / "model.tflite").total == ep.count_macs(ep.strip_pruning(model)).total


def test_export_before_anything_is_masked(tmp_path):
    model = compiled(dense_net())
    pruning = ep.ChannelPruning(ep.PolynomialDecay(0.0, 0.5, begin_step=1000, end_step=2000), pruning_ratio=0.5)
    model.fit(X, Y, batch_size=16, verbose=0, callbacks=[pruning])
    ep.export_tflite(model, tmp_path / "model.tflite")
    assert ep.count_macs_of_file(tmp_path / "model.tflite").total == ep.count_macs(model).total
    with pytest.raises(ValueError, match="No channel of 'net' is masked yet"):
        ep.strip_pruning(model)


def test_zeros_and_channels_at_once():
    model = compiled(ep.prune_low_magnitude(dense_net(), ep.PolynomialDecay(0.0, 0.8), layers="first"))
    pruning = ep.ChannelPruning(ep.PolynomialDecay(0.0, 0.5, frequency=2), pruning_ratio=0.5)
    fit(model, callbacks=[pruning])
    smaller = ep.strip_pruning(model)
    assert not ep.is_pruned(smaller)
    assert smaller.get_layer("second").units < 16
    kernel = np.asarray(smaller.get_layer("first").kernel)
    assert (kernel == 0).mean() > 0.5 and smaller.get_layer("first").kernel.constraint is None


def test_a_pruned_layer_and_its_step_are_known(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    model = dense_net(flavor)
    assert not ep.is_pruned(model)
    with pytest.raises(ValueError, match="'net' is not under pruning"):
        ep.pruning_step(model)
    model = compiled(ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8, end_step=12), layers="second"))
    assert ep.is_pruned(model) and [ep.is_pruned(layer) for layer in model.layers] == [False, True, False]
    assert ep.pruning_step(model) == ep.pruning_step(model.layers[1]) == -1
    seen = []
    at_begin = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: seen.append(ep.pruning_step(model)))
    fit(model, callbacks=[at_begin], epochs=1)
    assert seen == [0] and ep.pruning_step(model) == ep.pruning_step(model.layers[1]) == 6
    fit(model, epochs=1)
    assert ep.pruning_step(model) == 12
    for question in (ep.is_pruned, ep.pruning_step):
        with pytest.raises(TypeError, match="Expected a model or a layer"):
            question("model")


def test_the_step_of_a_layer_that_is_not_built(flavor):
    layer = ep.prune_low_magnitude(flavors.keras_module(flavor).layers.Dense(4), ep.ConstantSparsity(0.5, 0))
    assert ep.is_pruned(layer) and ep.pruning_step(layer) == -1
