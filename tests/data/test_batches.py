"""Data in every form are the same samples, in batches that are read one at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.data.batches import Batch, batches_of, count_of, first_array, joined, samples_of, unpack_batch

X = np.arange(30, dtype="float32").reshape(10, 3)
OTHER = np.arange(20, dtype="float32").reshape(10, 2)
Y, WEIGHTS = np.arange(10), np.arange(10) / 10
ONE = {"x": (3,)}
TWO = {"x": (3,), "other": (2,)}


def pairs(size=4):
    return ((X[start : start + size], Y[start : start + size]) for start in range(0, len(X), size))


def sequence(base, *arrays):
    class Pieces(base):
        def __len__(self):
            return 3

        def __getitem__(self, number):
            rows = slice(4 * number, 4 * number + 4)
            return tuple(array[rows] for array in arrays)

    return Pieces()


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


LABELLED = {
    "arrays": lambda: (X, Y),
    "lists of one array": lambda: ([X], [Y]),
    "numbers in lists": lambda: (X.tolist(), Y.tolist()),
    "a dict": lambda: ({"x": X}, Y),
    "tensors": lambda: (tf.constant(X), tf.constant(Y)),
    "a list of batches": lambda: list(pairs()),
    "a tuple of batches": lambda: tuple(pairs()),
    "batches as lists": lambda: [list(pair) for pair in pairs()],
    "a generator": pairs,
    "a function": lambda: pairs,
    "a function that returns arrays": lambda: lambda: (X, Y),
    "tf.data": lambda: dataset(X, Y).batch(4),
    "tf.data of samples": lambda: dataset(X, Y),
    "a PyDataset": lambda: sequence(keras.utils.PyDataset, X, Y),
    "a Sequence": lambda: sequence(tf_keras.utils.Sequence, X, Y),
}
UNLABELLED = {
    "an array": lambda: X,
    "a list of samples": lambda: list(X),
    "a list of batches": lambda: [X[:4], X[4:]],
    "numbers in lists": lambda: X.tolist(),
    "tf.data": lambda: tf.data.Dataset.from_tensor_slices(X).batch(3),
    "samples": lambda: iter(X),
    "batches in lists": lambda: ([batch] for batch, _ in pairs()),
}
SEVERAL = {
    "a list": lambda: [X, OTHER],
    "a tuple": lambda: (X, OTHER),
    "a pair": lambda: ((X, OTHER), Y),
    "numbers in lists": lambda: [X.tolist(), OTHER.tolist()],
    "lists of samples": lambda: [[a, b] for a, b in zip(X, OTHER, strict=True)],
    "a generator of lists": lambda: ([X[i : i + 2], OTHER[i : i + 2]] for i in range(0, 10, 2)),
    "tf.data of tuples": lambda: dataset(X, OTHER).batch(4),
    "tf.data with labels": lambda: dataset((X, OTHER), Y).batch(4),
}


def read(data, inputs, **options):
    """All that the batches hold, with arrays in the order of the inputs."""
    batches = list(batches_of(data, inputs=inputs, **options))
    return Batch(*(None if part[0] is None else concatenated(part) for part in zip(*batches, strict=True)))


def concatenated(parts):
    if isinstance(parts[0], dict):
        return concatenated([list(part.values()) for part in parts])
    if isinstance(parts[0], list | tuple):
        several = [np.concatenate([np.asarray(array) for array in arrays]) for arrays in zip(*parts, strict=True)]
        return several if len(several) > 1 else several[0]
    return np.concatenate([np.asarray(part) for part in parts])


@pytest.mark.parametrize("form", LABELLED)
def test_inputs_with_labels_in_every_form(form):
    found = read(LABELLED[form](), ONE, batch_size=3)
    np.testing.assert_array_equal(found.x, X)
    np.testing.assert_array_equal(found.y, Y)
    assert found.sample_weight is None
    whole = joined(LABELLED[form](), inputs=ONE)
    np.testing.assert_array_equal(first_array(whole.x), X)
    np.testing.assert_array_equal(first_array(whole.y), Y)
    np.testing.assert_array_equal(first_array(samples_of(LABELLED[form](), 10, inputs=ONE)), X)


@pytest.mark.parametrize("form", UNLABELLED)
def test_inputs_alone_in_every_form(form):
    found = read(UNLABELLED[form](), ONE)
    np.testing.assert_array_equal(found.x, X)
    assert found.y is None


@pytest.mark.parametrize("form", SEVERAL)
def test_several_inputs_in_every_form(form):
    found = read(SEVERAL[form](), TWO, batch_size=5)
    np.testing.assert_array_equal(found.x[0], X)
    np.testing.assert_array_equal(found.x[1], OTHER)


@given(samples=st.integers(1, 40), size=st.integers(1, 50), steps=st.none() | st.integers(1, 9), single=st.booleans())
def test_arrays_and_single_samples_are_batched_alike(samples, size, steps, single):
    x = np.arange(samples, dtype="float32")[:, None]
    data = iter(x) if single else (x, None, np.ones(samples))
    batches = list(batches_of(data, size, steps, inputs={"x": (1,)}))
    expected = [x[start : start + size] for start in range(0, samples, size)][:steps]
    assert [batch.x.tolist() for batch in batches] == [part.tolist() for part in expected]
    if not single:
        assert count_of(data, size, steps) == len(batches)
        assert [len(batch.sample_weight) for batch in batches] == [len(part) for part in expected]


def test_no_more_is_read_than_is_used():
    seen = []

    def endless():
        while True:
            seen.append(1)
            yield X, Y

    batches = batches_of(endless, steps=3)
    assert not seen
    assert next(batches).y is Y and len(seen) == 1
    assert len(list(batches)) == 2 and len(seen) == 3
    assert len(samples_of(endless, 15)) == 15 and len(seen) == 5


def test_a_function_can_be_read_twice():
    for _ in range(2):
        assert sum(len(batch.x) for batch in batches_of(pairs)) == 10


@pytest.mark.parametrize("endless", [dataset(X, Y).batch(2).repeat(), type("Endless", (), {})()])
def test_infinite_streams(endless):
    if not isinstance(endless, tf.data.Dataset):

        class Endless(keras.utils.PyDataset):
            num_batches = None

            def __getitem__(self, number):
                return X[:2], Y[:2]

        endless = Endless()
    for reader in (batches_of, joined, count_of):
        with pytest.raises(ValueError, match="is infinite"):
            reader(endless)
    assert len(list(batches_of(endless, steps=7))) == count_of(endless, steps=7) == 7


def test_a_stream_that_would_fill_the_memory(monkeypatch):
    monkeypatch.setattr("edgeprune.data.batches.memory", lambda: 10 * X.nbytes)
    with pytest.raises(ValueError, match="fill half of this machine's memory"):
        joined((X, Y) for _ in iter(int, 1))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y[:4]), r"different numbers of samples: \[4, 10\]"),
        ((X, Y, WEIGHTS, 1), "got 4 parts"),
        ((None, Y), "got 2 parts"),
        ((), "got no inputs"),
        (np.float32(3), "a row for each sample"),
        (([[1.0, 2.0], [3.0]], Y[:2]), "a row for each sample"),
        ([(X, Y), (X, Y, None, None)], "got 4 parts"),
    ],
)
def test_data_that_do_not_fit_together(data, message):
    with pytest.raises(ValueError, match=message):
        list(batches_of(data, inputs=ONE))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no batches"),
        ([(X, Y), X], "some batches with labels or weights and some without"),
        ([(X, Y), (OTHER, Y)], "do not fit together"),
        ([({"a": X}, Y), ({"b": X}, Y)], "do not fit together"),
    ],
)
def test_batches_that_do_not_fit_together(data, message):
    with pytest.raises(ValueError, match=message):
        joined(data, inputs=ONE)


def needs_an_argument(path):
    return X


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("data.npz", "data must be arrays x, .* got str"),
        (3, "got int"),
        (np.ndarray, "got type"),
        (needs_an_argument, "needs_an_argument must return data without being passed any argument"),
        (lambda: None, "it returned NoneType"),
    ],
    ids=["text", "number", "class", "argument", "nothing"],
)
def test_what_is_no_data(data, message):
    with pytest.raises(TypeError, match=message):
        batches_of(data)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 2.5}, {"steps": 0}])
def test_numbers_out_of_range(options):
    with pytest.raises(ValueError, match="must be a whole number of 1 or more"):
        batches_of(X, **options)


def test_a_batch_is_unpacked_once():
    batch = unpack_batch((X, Y, WEIGHTS))
    assert batch.sample_weight is WEIGHTS
    assert unpack_batch(batch) is batch
