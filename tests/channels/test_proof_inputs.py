"""The random inputs that a proof runs on: as long as the layers need, and small where that will do."""

import numpy as np
import pytest

import edgeprune as ep
from edgeprune import flavor as flavors


def long_net(keras, cropped):
    """A net of open length that gives nothing for sequences of twice `cropped` steps."""
    layers = keras.layers
    i = keras.Input((None, 4))
    h = layers.Conv1D(8, 3, padding="same", activation="relu", name="a")(i)
    h = layers.Add()([h, layers.Conv1D(8, 3, padding="same", name="b")(h)])
    return keras.Model(i, layers.Conv1D(3, 1, name="head")(layers.Cropping1D(cropped)(h)), name="long")


@pytest.mark.parametrize("cropped", [0, 100, 300])
def test_longer_inputs_are_tried(flavor, cropped):
    keras = flavors.keras_module(flavor)
    model = long_net(keras, cropped)
    smaller = ep.prune_channels(model, pruning_ratio=0.5)
    assert smaller.count_params() < model.count_params()
    for name in "ab":
        kernel = np.array(model.get_layer(name).kernel)
        kernel[..., :2] = 0
        model.get_layer(name).kernel.assign(kernel)
    assert ep.remove_dead_channels(model).count_params() < model.count_params()


def test_a_model_that_no_input_fits_is_told(flavor):
    keras = flavors.keras_module(flavor)
    model = long_net(keras, 3000)
    words = r"'long' cannot be called on random inputs of shape \(2, 16, 4\), so nothing can be proven: pass verify"
    for prove in (lambda: ep.prune_channels(model, pruning_ratio=0.5), lambda: ep.remove_dead_channels(model)):
        with pytest.raises(ValueError, match=words):
            prove()
    assert ep.prune_channels(model, pruning_ratio=0.5, verify=False).count_params() < model.count_params()
