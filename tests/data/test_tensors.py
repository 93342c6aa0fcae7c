"""Batches become tensors in the order, shapes and dtypes of a model's inputs."""

import numpy as np
import pytest

from edgeprune import flavor as flavors
from edgeprune.data.tensors import input_tensors


@pytest.fixture(params=["keras", "tf_keras"])
def model(request):
    keras = flavors.keras_module(request.param)
    number, rows = keras.Input((1,), name="number"), keras.Input((None, 3), name="rows")
    return keras.Model([number, rows], [keras.layers.Dense(2)(number), keras.layers.Dense(2)(rows)])


def test_order_shapes_and_dtypes(model):
    number, rows = np.arange(4), np.ones((4, 7, 3), "float64")
    for x in ({"rows": rows, "number": number}, [number[:, None], rows], (number, rows)):
        first, second = input_tensors(model, x)
        assert first.shape == (4, 1) and second.shape == (4, 7, 3)
        assert first.dtype == second.dtype == "float32"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((4, 1)), "has 2 inputs .*, got 1"),
        ({"number": np.ones(4)}, r"has the inputs .*, got 'number'"),
        (
            [np.ones(4), np.ones((4, 3))],
            r"Input 'rows' expects samples of shape \(None, 3\); got \(4, 3\)",
        ),
        ([np.ones((4, 2)), np.ones((4, 7, 3))], r"Input 'number' expects samples of shape \(1,\)"),
        ([np.ones(4, complex), np.ones((4, 7, 3))], "Input 'number' is of type float32; got data of type complex128"),
        ([np.array([None] * 4), np.ones((4, 7, 3))], "Input 'number' is of type float32; got data of type object"),
        ([np.array(list("abcd")), np.ones((4, 7, 3))], "got data of type string"),
    ],
)
def test_data_that_do_not_fit(model, x, message):
    with pytest.raises(ValueError, match=message):
        input_tensors(model, x)


@pytest.mark.parametrize("flavor", ["keras", "tf_keras"])
def test_whole_numbers_are_not_rounded(flavor):
    keras = flavors.keras_module(flavor)
    tokens = keras.Input((3,), dtype="int32", name="tokens")
    model = keras.Model(tokens, keras.layers.Embedding(5, 2)(tokens))
    for good in ([[0.0, 2.0, 4.0]], [[True, False, True]], np.array([[1, 2, 3]], "uint8")):
        (tensor,) = input_tensors(model, np.array(good))
        assert tensor.dtype == "int32" and np.array_equal(tensor, np.array(good))
    for bad, said in (([[0.5, 2, 4]], "from 0.5 to 4 of type float64"), ([[1, 2, 2**31]], "from 1 to 2.14748e.09 of")):
        with pytest.raises(ValueError, match=f"Input 'tokens' expects whole numbers of type int32, got values {said}"):
            input_tensors(model, np.array(bad))
    with pytest.raises(ValueError, match="whole numbers"):
        input_tensors(model, np.array([[1.0, np.nan, 2.0]]))
