import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from edgeprune import flavor as flavors
from edgeprune.conversion.known_values import random_samples
from edgeprune.export.representative import samples

ONE = {"image": tf.TensorSpec((1, 4, 3), tf.float32)}
TWO = {"image": tf.TensorSpec((1, 4, 3), tf.float32), "count": tf.TensorSpec((1, 2), tf.int32)}
IMAGES = np.arange(10 * 12, dtype=np.float32).reshape(10, 4, 3)
COUNTS = np.arange(20, dtype=np.int32).reshape(10, 2)
LABELS = np.arange(10)


def dataset(value):
    return tf.data.Dataset.from_tensor_slices(value)


def sequence_class(flavor):
    keras = flavors.keras_module(flavor)
    return keras.utils.PyDataset if flavor == "keras" else keras.utils.Sequence


def pieces(flavor, with_labels=True):
    """Two batches of five, as a PyDataset of Keras 3 or a Sequence of tf_keras."""

    class Pieces(sequence_class(flavor)):
        def __len__(self):
            return 2

        def __getitem__(self, number):
            x = IMAGES[5 * number : 5 * number + 5]
            return (x, LABELS[5 * number : 5 * number + 5]) if with_labels else x

    return Pieces()


ONE_INPUT = {
    "array": lambda: IMAGES,
    "array of another float type": lambda: IMAGES.astype(np.float64),
    "tensor": lambda: tf.constant(IMAGES),
    "dict": lambda: {"image": IMAGES},
    "list of one array": lambda: [IMAGES],
    "list of samples": lambda: list(IMAGES),
    "tuple with labels": lambda: (IMAGES, LABELS),
    "nested lists": lambda: IMAGES.tolist(),
    "dataset of samples": lambda: dataset(IMAGES),
    "dataset of batches": lambda: dataset(IMAGES).batch(4),
    "dataset with labels": lambda: dataset((IMAGES, LABELS)),
    "dataset of batches with labels": lambda: dataset((IMAGES, LABELS)).batch(4),
    "dataset with labels and weights": lambda: dataset((IMAGES, LABELS, LABELS)).batch(4),
    "dataset of dicts": lambda: dataset({"image": IMAGES}).batch(4),
    "endless dataset": lambda: dataset(IMAGES).repeat(),
    "PyDataset": lambda: pieces("keras"),
    "PyDataset without labels": lambda: pieces("keras", with_labels=False),
    "Sequence": lambda: pieces("tf_keras"),
    "generator function, as TensorFlow's converter takes it": lambda: lambda: ([x[None]] for x in IMAGES),
    "generator function of samples": lambda: lambda: iter(IMAGES),
    "generator": lambda: iter(IMAGES),
}

TWO_INPUTS = {
    "dict": lambda: {"count": COUNTS, "image": IMAGES},
    "list": lambda: [IMAGES, COUNTS],
    "tuple": lambda: (IMAGES, COUNTS),
    "tuple with labels": lambda: ([IMAGES, COUNTS], LABELS),
    "dataset of tuples": lambda: dataset((IMAGES, COUNTS)),
    "dataset of dicts with labels": lambda: dataset(({"image": IMAGES, "count": COUNTS}, LABELS)).batch(3),
    "dataset of tuples with labels": lambda: dataset(((IMAGES, COUNTS), LABELS)).batch(3),
    "generator function of lists": lambda: lambda: ([x, c] for x, c in zip(IMAGES, COUNTS, strict=True)),
    "floats that are whole": lambda: {"image": IMAGES, "count": COUNTS.astype(np.float32)},
}


@pytest.mark.parametrize("form", ONE_INPUT)
def test_one_input_in_every_form(form):
    got = samples(ONE_INPUT[form](), ONE, count=10)
    assert list(got) == ["image"] and got["image"].dtype == np.float32
    np.testing.assert_array_equal(got["image"], IMAGES)


@pytest.mark.parametrize("form", TWO_INPUTS)
def test_two_inputs_in_every_form(form):
    got = samples(TWO_INPUTS[form](), TWO, count=10)
    assert list(got) == ["image", "count"]
    np.testing.assert_array_equal(got["image"], IMAGES)
    np.testing.assert_array_equal(got["count"], COUNTS)
    assert got["count"].dtype == np.int32


def test_one_sample_without_a_batch_axis():
    np.testing.assert_array_equal(samples(IMAGES[3], ONE)["image"], IMAGES[3:4])


@given(length=st.integers(1, 60), count=st.integers(1, 60))
def test_arrays_are_sampled_evenly(length, count):
    data = np.arange(length, dtype=np.float32)[:, None]
    got = samples(data, {"x": tf.TensorSpec((1, 1))}, count)["x"][:, 0]
    assert len(got) == min(length, count)
    assert set(got) <= set(range(length))
    if len(got) > 1:
        assert got[0] == 0 and got[-1] == length - 1
        assert np.ptp(np.diff(got)) <= 1 and np.diff(got).min() >= 1


def test_a_stream_is_read_no_further_than_needed():
    read = []

    def generator():
        for number, image in enumerate(IMAGES):
            read.append(number)
            yield image

    assert len(samples(generator, ONE, count=3)["image"]) == 3
    assert read == [0, 1, 2]


def bad(index, value):
    data = IMAGES.copy()
    data[index] = value
    return data


@pytest.mark.parametrize(
    "data, message",
    [
        (np.zeros((5, 4, 4)), r"Input 'image' expects samples of shape \(4, 3\).*\(5, 4, 4\)"),
        (np.zeros((5, 4, 3, 1)), r"Input 'image' expects samples of shape \(4, 3\)"),
        (np.float32(1), "The representative data must be regular arrays with a row for each sample"),
        (np.zeros((0, 4, 3)), "The representative data is empty"),
        ([], "The representative data is empty"),
        (lambda: iter(()), "The representative data is empty"),
        (bad((7, 0, 0), np.nan), "Input 'image': sample 7 .* NaN or infinity"),
        (bad((2, 1, 1), np.inf), "Input 'image': sample 2 .* NaN or infinity"),
        (np.full((5, 4, 3), "a"), "Input 'image' expects .* float32; got values of type <U1"),
        (IMAGES.astype(np.complex64), "Input 'image' expects .* complex64"),
        ({"picture": IMAGES}, r"Expected representative data for 'image'.*'picture'"),
        ({}, "a row for each sample"),
        (lambda: iter([[[1.0, 2.0], [3.0]]]), "must be regular arrays"),
    ],
)
def test_data_that_do_not_fit_one_input(data, message):
    with pytest.raises(ValueError, match=message):
        samples(data, ONE)


@pytest.mark.parametrize(
    "data, message",
    [
        (IMAGES, r"for 'image' .* 'count' .* 2 inputs .* got 1\."),
        ([IMAGES, COUNTS, COUNTS], r"2 inputs.*got 3\."),
        ({"image": IMAGES}, r"Expected representative data for 'image' .*'count'.* got 'image'\."),
        ([IMAGES, COUNTS[:4]], r"the representative data have different numbers of samples: \[4, 10\]"),
        ({"image": IMAGES, "count": COUNTS + 0.5}, r"Input 'count' expects .* int32; .* do not fit"),
        ({"image": IMAGES, "count": COUNTS.astype(np.int64) * 2**40}, r"Input 'count' .* do not fit"),
    ],
)
def test_data_that_do_not_fit_two_inputs(data, message):
    with pytest.raises(ValueError, match=message):
        samples(data, TWO)


@pytest.mark.parametrize("data", [3, "images.npy", object()])
def test_data_of_an_unknown_kind(data):
    with pytest.raises(TypeError, match=f"representative_data must be arrays x.*got {type(data).__name__}"):
        samples(data, ONE)


def test_no_samples_asked_for():
    with pytest.raises(ValueError, match="num_samples must be a whole number of 1 or more; got 0"):
        samples(IMAGES, ONE, count=0)


def test_random_samples_fit_the_inputs_and_repeat():
    specs = {**TWO, "mask": tf.TensorSpec((1, 5), tf.bool)}
    made, again = random_samples(specs, 7), random_samples(specs, 7)
    for name, spec in specs.items():
        assert made[name].shape == (7, *spec.shape[1:]) and made[name].dtype == spec.dtype.as_numpy_dtype
        np.testing.assert_array_equal(made[name], again[name])
        assert made[name].std() > 0
