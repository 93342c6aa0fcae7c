"""Channels masked while a model trained inside another one, or before another one was built around it."""

import numpy as np
import pytest
from nets.samples import labelled

import edgeprune as ep
from edgeprune import flavor as flavors

X, Y = labelled(32, 10)


def student_of(keras, name="student"):
    layers = keras.layers
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(12, activation="relu", name="hidden"), layers.Dense(8, activation="relu", name="features")]
    return keras.Sequential([keras.Input((10,)), *hidden], name=name)


def around(keras, *inner):
    """A Functional model of nested ones with a head."""
    i = h = keras.Input((10,))
    for model in inner:
        h = model(h)
    return keras.Model(i, keras.layers.Dense(3, activation="softmax", name="head")(h), name="outer")


def train(model, ratio=0.5, epochs=2, loss="sparse_categorical_crossentropy"):
    if loss:
        model.compile("sgd", loss)
    pruning = ep.ChannelPruning(ep.ConstantSparsity(ratio, 0, frequency=1), pruning_ratio=ratio, scope="local")
    model.fit(X, Y, epochs=epochs, verbose=0, callbacks=[pruning])


def widths(model):
    return {layer.name: layer.units for layer in flavors.layers_of(model) if hasattr(layer, "units")}


def check(model, expected):
    """What is stripped has these widths and computes what the trained model does; the trained one stays."""
    assert ep.is_pruned(model)
    before, values = widths(model), np.asarray(model(X, training=False))
    smaller = ep.strip_pruning(model)
    assert widths(smaller) == expected and widths(model) == before
    np.testing.assert_allclose(np.asarray(smaller(X, training=False)), values, rtol=1e-5, atol=1e-6)
    assert not ep.is_pruned(smaller)
    return smaller


@pytest.mark.above_flavor
def test_a_model_inside_the_one_that_was_trained(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    student = student_of(keras)
    outer = around(keras, student)
    train(outer)
    check(student, {"hidden": 6, "features": 8})  # the head reads its outputs, so they stay
    check(outer, {"hidden": 6, "features": 4, "head": 3})
    result = ep.export_tflite(student, tmp_path / "student.tflite", verbose=0)
    assert ep.count_macs_of_file(result.path).total == 10 * 6 + 6 * 8


@pytest.mark.above_flavor
def test_a_model_around_the_one_that_was_trained(flavor):
    keras = flavors.keras_module(flavor)
    inner = around(keras, student_of(keras))
    train(inner)
    i = keras.Input((10,))
    outer = keras.Model(i, keras.layers.Dense(2, name="last")(inner(i)))
    check(outer, {"hidden": 6, "features": 4, "head": 3, "last": 2})
    i = keras.Input((10,))
    other = keras.Model(i, keras.layers.Dense(2, name="last")(inner.layers[1](i)))
    assert widths(ep.strip_pruning(other)) == {"hidden": 6, "features": 8, "last": 2}  # a new layer reads all of them


@pytest.mark.above_flavor
def test_two_models_inside(flavor):
    keras = flavors.keras_module(flavor)
    encoder = student_of(keras, "encoder")
    layers = [keras.layers.Dense(9, activation="relu", name="wide"), keras.layers.Dense(7, name="back")]
    decoder = keras.Sequential([keras.Input((8,)), *layers], name="decoder")
    outer = around(keras, encoder, decoder)
    train(outer, ratio=0.4)
    smaller = [ep.strip_pruning(encoder), ep.strip_pruning(decoder)]
    assert widths(smaller[0]) == {"hidden": 7, "features": 8}
    assert widths(smaller[1]) == {"wide": 5, "back": 7}
    expected = decoder(encoder(X))
    np.testing.assert_allclose(smaller[1](smaller[0](X)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.above_flavor
def test_a_model_that_was_trained_alone_and_then_inside(flavor):
    keras = flavors.keras_module(flavor)
    student = student_of(keras)
    train(student, ratio=0.25)
    assert widths(ep.strip_pruning(student)) == {"hidden": 9, "features": 8}
    train(around(keras, student))
    check(student, {"hidden": 6, "features": 8})


def test_nothing_to_take_out(flavor):
    keras = flavors.keras_module(flavor)
    student = student_of(keras)
    outer = around(keras, student)
    outer.compile("sgd", "sparse_categorical_crossentropy")
    late = ep.ChannelPruning(ep.ConstantSparsity(0.5, 100), pruning_ratio=0.5)
    outer.fit(X, Y, verbose=0, callbacks=[late])
    assert ep.is_pruned(student) and not ep.is_pruned(student_of(keras))
    for model, words in ((outer, "'outer' is masked yet: train"), (student, "'student' is masked yet, or only those")):
        with pytest.raises(ValueError, match=words):
            ep.strip_pruning(model)
    with pytest.raises(TypeError, match="Channels of layer 'hidden' are coupled with those of other layers"):
        ep.strip_pruning(student.get_layer("hidden"))


def distillers(keras):
    class Own(keras.Model):
        def __init__(self, student, teacher):
            super().__init__(name="own")
            self.student, self.teacher = student, teacher

        def call(self, x):
            return self.student(x)

        def train_step(self, data):
            import tensorflow as tf

            x, _ = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self.student(x, training=True) - self.teacher(x)))
            weights = self.student.trainable_variables
            self.optimizer.apply(tape.gradient(loss, [weight.value for weight in weights]), weights)
            return {"loss": loss}

    def of_keras(student, teacher):
        return keras.distillation.Distiller(
            teacher=teacher, student=student, distillation_losses=keras.distillation.LogitsDistillation(temperature=2.0)
        )

    return {"own": Own, "of_keras": of_keras}


@pytest.mark.parametrize("kind", ["own", "of_keras"])
def test_the_student_of_a_distiller(kind):
    keras = flavors.keras_module(flavors.KERAS_3)
    student, teacher = around(keras, student_of(keras)), around(keras, student_of(keras))
    distiller = distillers(keras)[kind](student, teacher)
    distiller(X[:1])
    distiller.compile("sgd", **({} if kind == "own" else {"loss": "sparse_categorical_crossentropy"}))
    before = [np.array(weight) for weight in teacher.weights]
    train(distiller, loss=None)
    expected = {"hidden": 6, "features": 4, "head": 3}
    check(student, expected)
    check(distiller, expected)
    assert not ep.is_pruned(teacher)
    for weight, old in zip(teacher.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), old)
