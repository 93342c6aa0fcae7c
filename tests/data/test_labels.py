"""Labels that a loss cannot take are refused before a step, and others are not."""

import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

from edgeprune import flavor as flavors
from edgeprune.data.labels import check_labels

CLASSES = 3
SPARSE = "sparse_categorical_crossentropy"


def net(flavor, outputs=("kind",), loss=SPARSE):
    keras = flavors.keras_module(flavor)
    i = keras.Input((2,))
    model = keras.Model(i, [keras.layers.Dense(CLASSES, activation="softmax", name=name)(i) for name in outputs])
    model.compile("sgd", loss)
    return model


@pytest.fixture(scope="module")
def one_output():
    return net("keras")


@settings(deadline=None, max_examples=40)
@given(labels=st.lists(st.integers(-2, CLASSES + 1), min_size=1, max_size=4))
def test_class_numbers_are_refused_where_tensorflow_refuses_them(one_output, labels):
    def refused(call, error):
        try:
            call()
        except error:
            return True
        return False

    logits = tf.zeros([len(labels), CLASSES])
    by_tensorflow = refused(
        lambda: tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits),
        tf.errors.InvalidArgumentError,
    )
    assert refused(lambda: check_labels(one_output, np.array(labels)), ValueError) == by_tensorflow


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0, -1]), "The labels must be class numbers from 0 to 2; got -1"),
        (np.array([0.0, 3.0]), "from 0 to 2; got 3.0"),
        (np.array([0.0, np.nan]), "got nan"),
        (np.array([0.5, 1.0]), "got 0.5"),
        (np.array(["0", "1"]), "must be real numbers; got values of type <U1, such as '0'"),
        (np.array([1j, 0]), "must be real numbers; got values of type complex128"),
        (np.array([None, 1]), "must be real numbers; got values of type object"),
    ],
)
def test_what_is_said(flavor, labels, words):
    keras = flavors.keras_module(flavor)
    for loss in (SPARSE, keras.losses.SparseCategoricalCrossentropy(from_logits=True)):
        with pytest.raises(ValueError, match=words):
            check_labels(net(flavor), labels, loss)
    if labels.dtype.kind not in "UcO":  # other losses take any real number, and NaN may stand for "not known"
        check_labels(net(flavor), labels, "mse")


def test_the_output_is_named(flavor):
    model = net(flavor, ("kind", "size"), {"kind": SPARSE, "size": "mse"})
    good, bad = np.array([0, 2]), np.array([0, 7])
    check_labels(model, {"kind": good, "size": bad})
    check_labels(model, [good, bad])
    check_labels(model, {"size": bad})
    check_labels(model, None)
    for labels in ({"kind": bad, "size": good}, [bad, good], (bad, good)):
        with pytest.raises(ValueError, match="labels of output 'kind' must be class numbers from 0 to 2; got 7"):
            check_labels(model, labels)
    with pytest.raises(ValueError, match="has 2 outputs, got 1 labels"):
        check_labels(model, [good])
    with pytest.raises(ValueError, match=r"outputs are \['kind', 'size'\], got labels for \['sort'\]"):
        check_labels(model, {"sort": good})


def test_a_class_that_the_loss_ignores_may_have_any_number(flavor):
    keras = flavors.keras_module(flavor)
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    check_labels(net(flavor), np.array([0, 255]), loss)
    with pytest.raises(ValueError, match="got 254"):
        check_labels(net(flavor), np.array([254, 255]), loss)


def test_of_a_subclassed_model_the_number_of_classes_is_not_known():
    keras = flavors.keras_module("keras")

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(CLASSES, activation="softmax")

        def call(self, x):
            return self.head(x)

    model = Own()
    model.compile("sgd", SPARSE)
    model(np.zeros((1, 2)))
    check_labels(model, np.array([0, 7]))
    with pytest.raises(ValueError, match="must be class numbers, 0 or more; got -1"):
        check_labels(model, np.array([-1]))
