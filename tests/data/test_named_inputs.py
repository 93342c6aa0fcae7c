"""Inputs by their names, whatever structure they were passed in."""

import numpy as np
import pytest

from edgeprune import flavor as flavors
from edgeprune.data.named_inputs import named_inputs

A, B, C = np.zeros((2, 1)), np.zeros((2, 2)), np.zeros((2, 3))


def net(flavor, arrange):
    """A model that is called on three inputs, structured by a function of them."""
    keras = flavors.keras_module(flavor)
    a, b, c = (keras.Input((size,), name=name) for size, name in enumerate("abc", start=1))
    return keras.Model(arrange(a, b, c), keras.layers.Concatenate()([a, b, c]), name="net")


def is_abc(found):
    return {name: array.shape[1] for name, array in found.items()} == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(
    "arrange",
    [
        lambda a, b, c: [c, a, b],
        lambda a, b, c: {"third": c, "first": a, "second": b},
        lambda a, b, c: [c, {"first": a, "second": b}],
    ],
    ids=["list", "dict", "nested"],
)
def test_by_name_and_as_in_the_call(flavor, arrange):
    model = net(flavor, arrange)
    assert is_abc(named_inputs(model, arrange(A, B, C)))
    assert is_abc(named_inputs(model, {"c": C, "b": B, "a": A, "unread": A}))


def test_samples_of_one_input_in_a_list(flavor):
    keras = flavors.keras_module(flavor)
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(1)])
    for x, shape in ((C, (2, 3)), ([C], (2, 3)), ([C[0]], (1, 3)), ([C[0], C[1]], (2, 3)), ([[0.0, 1.0, 2.0]], (1, 3))):
        assert np.asarray(named_inputs(model, x)["x"]).shape == shape


def test_a_dict_for_a_subclassed_model_that_is_called_on_a_list(flavor):
    class Net(flavors.keras_module(flavor).Model):
        def call(self, inputs):
            return inputs[0] + inputs[1]

    model = Net()
    model([A, A])
    found = named_inputs(model, {"output_10": C, "output_2": A})
    assert [array.shape for array in found.values()] == [(2, 1), (2, 3)]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"a": A, "c": C}, "Model 'net' has the inputs 'c', 'a', 'b', got 'a', 'c'."),
        ([A, B], r"Model 'net' has 3 inputs \('c', 'a', 'b'\), got 2."),
        (A, "got 1"),
        ({}, "got none"),
    ],
)
def test_what_is_missing_is_named(flavor, x, message):
    with pytest.raises(ValueError, match=message):
        named_inputs(net(flavor, lambda a, b, c: [c, a, b]), x)
