"""Functions of the user that return data, in every form."""

from __future__ import annotations

import numpy as np
import pytest
from data.forms import X, Y, function, same

import edgeprune as ep


@pytest.mark.parametrize(
    "body",
    [
        "def load(): return X, Y",
        "def load(): return {'x': X, 'y': Y}",
        "def load(): return [X], [Y]",
        "def load(): return {'x.features': X, 'y': {'kind': Y}}",
        "def load():\n    for i in range(0, 6, 4): yield X[i:i + 4], Y[i:i + 4]",
        "def load():\n    import tensorflow as tf\n    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)",
        "def load():\n    import keras\n    class Batches(keras.utils.PyDataset):\n"
        "        def __len__(self): return 3\n"
        "        def __getitem__(self, i): return {'features': X[2 * i:2 * i + 2]}, Y[2 * i:2 * i + 2]\n"
        "    return Batches()",
        "def load():\n    import edgeprune as ep\n    np.savez('own.npz', x=X, y=Y)\n"
        "    return ep.load_data('own.npz')",
    ],
    ids=["tuple", "dict", "lists", "names", "generator", "tf.data", "PyDataset", "Data"],
)
def test_functions_return_the_same_data(folder, one, body):
    data = ep.load_data(function(folder, body), one)
    same(data.x_train, X)
    same(data.y_train, Y)
    assert not data.held_out


@pytest.mark.parametrize(
    "body",
    [
        "def load(): return (X[:4], Y[:4], np.ones(4)), (X[4:], Y[4:], np.ones(2))",
        "def load(): return {'x_train': X[:4], 'y_train': Y[:4], 'sample_weight_train': [1] * 4, 'x_test': X[4:], "
        "'y_test': Y[4:], 'sample_weight_test': [1, 1]}",
        "def batches(x, y): yield x, y, np.ones(len(x))\n"
        "def load(): return batches(X[:4], Y[:4]), batches(X[4:], Y[4:])",
    ],
    ids=["tuples", "dict", "generators"],
)
def test_functions_return_training_and_test_samples(folder, one, body):
    data = ep.load_data(function(folder, body), one)
    assert data.held_out
    same(data.x_train, X[:4])
    same(data.y_test, Y[4:])
    same(data.sample_weight_train, np.ones(4))


def test_functions_and_several_inputs(folder, two):
    for number, x in enumerate(("[X[:, :3], X[:, 3:]]", "{'right': X[:, 3:], 'left': X[:, :3]}")):
        for body in (f"def load(): return {x}, [X[:, :1], X[:, :2]]", f"def load(): yield {x}, (X[:, :1], X[:, :2])"):
            data = ep.load_data(function(folder, body, f"mine{number}{len(body)}.py"), two)
            same(data.x_train, {"left": X[:, :3], "right": X[:, 3:]})
            same(data.y_train, {"value": X[:, :1], "box": X[:, :2]})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def load(): raise KeyError('no such file')", "load stopped: KeyError: 'no such file'"),
        ("def load():\n    yield X, Y\n    1 / 0", "load stopped: ZeroDivisionError"),
        ("def load(): exit(3)", "load stopped: SystemExit: 3"),
        ("load = 7", "load is no function: its type is int"),
        ("def load(): pass", "load returned NoneType; expected an array, a tuple"),
        ("def load(): return 'data.npz'", "load returned str; expected an array"),
        ("def load(): return X, Y, None, None", "got 4 parts"),
        ("def load(): return {'images': X}", r"returned a dict with \['images'\]; its keys are x, y"),
        ("def load(): return iter(())", "load has no batches"),
        ("def load():\n    yield X, Y\n    yield X", "some batches with labels or weights and some without"),
        ("def load():\n    yield X, Y\n    yield X[:, :2], Y", "batches that do not fit together"),
        ("def load(): return [[1, 2], [3]], Y", "x is no regular array"),
        ("def load(): return [X, X], Y", r"model 'one' has 1 input \('features'\), got 2"),
        ("def load(): return X * np.inf, Y", "24 of 24 values of x are NaN or infinite"),
        (
            "def load():\n    import tensorflow as tf\n    return tf.data.Dataset.from_tensors((X, Y)).repeat()",
            "load is infinite",
        ),
    ],
)
def test_functions_that_return_no_data(folder, one, body, message):
    body = body.replace("X * np.inf", "(X + 1) * np.inf")
    with pytest.raises(ValueError, match=message) as caught:
        ep.load_data(function(folder, body), one)
    assert "\n" not in str(caught.value)
    if "stopped" in message:
        assert caught.value.__cause__.__traceback__ is not None


def test_batches_without_an_end(folder, one, monkeypatch):
    monkeypatch.setattr("edgeprune.data.batches.memory", lambda: 100 * X.nbytes)
    with pytest.raises(ValueError, match="infinitely many batches.* fill half of this machine's memory"):
        ep.load_data(function(folder, "def load():\n    while True: yield X, Y"), one)
