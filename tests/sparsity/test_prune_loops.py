"""Pruning in loops of the user's own and around layers that are not called in training: zeros, or a warning."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from nets.pruned_nets import STEPS, X, Y, assert_exact, compiled, dense_net, fit

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.sparsity import masks, wrapper_masks


def loop(model, keras, epochs=2, size=16, hooks=("begin",), compiled_step=False, training=True):
    """TF-MOT's guide: `begin` and `end` say which batch hooks the loop calls."""
    loss, optimizer = keras.losses.SparseCategoricalCrossentropy(), keras.optimizers.Adam()
    model.optimizer = optimizer
    pruning = ep.UpdatePruningStep()
    pruning.set_model(model)

    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=training))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    step = tf.function(step) if compiled_step else step
    pruning.on_train_begin()
    for _ in range(epochs):
        for start in range(0, len(X), size):
            if "begin" in hooks:
                pruning.on_train_batch_begin(batch=-1)
            step(X[start : start + size], Y[start : start + size])
            if "end" in hooks:
                pruning.on_train_batch_end(batch=-1)
        if "epoch" not in hooks:
            pruning.on_epoch_end(batch=-1)


@pytest.mark.parametrize("compiled_step", [False, True])
def test_a_step_counts_whether_or_not_its_end_is_called(compiled_step, flavor):
    model = ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.8, 0, 2 * STEPS, frequency=3))
    loop(model, flavors.keras_module(flavor), epochs=1, hooks=("begin",), compiled_step=compiled_step)
    loop(model, flavors.keras_module(flavor), epochs=1, hooks=("begin", "end"), compiled_step=compiled_step)
    assert ep.pruning_step(model) == 2 * STEPS
    assert_exact(ep.strip_pruning(model))


def test_an_epoch_may_have_a_single_step_without_an_end(flavor):
    model = ep.prune_low_magnitude(dense_net(flavor), ep.ConstantSparsity(0.8, 0, frequency=1), scope="global")
    loop(model, flavors.keras_module(flavor), size=len(X))
    assert ep.pruning_step(model) == 2
    assert ep.sparsity_report(ep.strip_pruning(model)).zeros == 944 - masks.kept_count(944, 0.8)


def test_a_first_batch_that_is_interrupted_in_fit_is_no_step(flavor):
    keras = flavors.keras_module(flavor)
    model = compiled(ep.prune_low_magnitude(dense_net(flavor), ep.PolynomialDecay(0.0, 0.8), scope="global"))

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[Interrupt()])
    fit(model)
    assert ep.pruning_step(model) == 2 * STEPS


def test_a_schedule_that_no_step_of_a_loop_falls_on_is_warned_of_at_the_end(flavor):
    model = ep.prune_low_magnitude(dense_net(flavor), ep.ConstantSparsity(0.5, 0, frequency=100))
    loop(model, flavors.keras_module(flavor))
    with pytest.warns(UserWarning, match=r"stripped at step 1[12], with a sparsity of 0.000 rather than 0.500"):
        ep.strip_pruning(model)


def test_a_loop_without_any_hook_is_warned_of_at_the_end(flavor):
    model = ep.prune_low_magnitude(dense_net(flavor), ep.ConstantSparsity(0.5, 0, frequency=1), scope="global")
    loop(model, flavors.keras_module(flavor), hooks=("epoch",), compiled_step=True)
    names = "first/kernel, second/kernel, head/kernel: no zeros" if flavor == "tf_keras" else "its schedule never ran"
    with pytest.warns(UserWarning, match=names):
        ep.strip_pruning(model)


def test_a_tf_keras_loop_that_calls_the_model_as_in_inference_is_warned_of():
    keras = flavors.keras_module("tf_keras")
    model = ep.prune_low_magnitude(dense_net("tf_keras"), ep.ConstantSparsity(0.5, 0, frequency=1))
    loop(model, keras, hooks=("epoch",), training=False)
    with pytest.warns(UserWarning, match="its schedule never ran"):
        ep.strip_pruning(model)


def test_equal_magnitudes_leave_no_zeros_and_are_warned_of(flavor):
    """With a learning rate of zero the kernel of ones stays one: every weight ties with the threshold."""
    keras = flavors.keras_module(flavor)
    model = dense_net(flavor)
    model.set_weights([np.ones_like(w) if w.shape == (32, 16) else w for w in model.get_weights()])
    model = ep.prune_low_magnitude(model, ep.ConstantSparsity(0.5, 0, frequency=1))
    fit(compiled(model, keras.optimizers.SGD(0.0)))
    with pytest.warns(UserWarning, match="^second/kernel: no zeros after"):
        ep.strip_pruning(model)


def test_groups_longer_than_the_inputs_are_warned_of():
    model = compiled(ep.prune_low_magnitude(dense_net(), sparsity_m_by_n=(1, 14), layers="first"))
    fit(model, epochs=1)
    with pytest.warns(UserWarning, match="^first/kernel: no zeros .* fewer inputs than each group of N:M keeps"):
        ep.strip_pruning(model)


def transfer_net(keras, frozen, deep):
    """A base called with `training=False`, as in TensorFlow's tutorial, and around it a model with a head."""
    base = keras.Sequential(
        [keras.Input((12,)), keras.layers.Dense(32, name="inside"), keras.layers.BatchNormalization()], name="base"
    )
    base.trainable = not frozen
    inputs = keras.Input((12,))
    features = base(inputs, training=False)
    if deep:
        middle = keras.Model(inputs, keras.layers.Dense(16, name="between")(features), name="middle")
        inputs = keras.Input((12,))
        features = middle(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(features))


@pytest.mark.parametrize(("frozen", "deep"), [(True, False), (False, True)])
def test_a_base_called_as_in_inference_is_pruned(frozen, deep, flavor):
    model = transfer_net(flavors.keras_module(flavor), frozen, deep)
    model = compiled(ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8)))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no zeros")
        fit(model)
        assert_exact(ep.strip_pruning(model))


@pytest.mark.parametrize(
    "arguments", [dict(sparsity_m_by_n=(1, 2)), dict(block_size=(4, 2)), dict(scope="global")], ids=str
)
def test_the_masks_of_such_a_base_follow_the_settings(arguments):
    keras = flavors.keras_module("tf_keras")
    schedule = ep.ConstantSparsity(0.5, 0, frequency=1)
    model = ep.prune_low_magnitude(transfer_net(keras, False, False), schedule, layers="inside", **arguments)
    fit(compiled(model))
    kernel = ep.strip_pruning(model).get_layer("base").get_layer("inside").kernel.numpy()
    assert (kernel == 0).mean() == 0.5
    if "block_size" in arguments:
        blocks = (kernel == 0).reshape(3, 4, 16, 2)
        assert (blocks.all(axis=(1, 3)) == blocks.any(axis=(1, 3))).all()
    if "sparsity_m_by_n" in arguments:
        assert ((kernel == 0).reshape(6, 2, 32).sum(axis=1) == 1).all()


def test_the_step_of_such_a_base_is_saved_with_it(tmp_path):
    keras = flavors.keras_module("tf_keras")

    def under_pruning():
        keras.utils.set_random_seed(1)
        schedule = ep.PolynomialDecay(0.0, 0.8, 0, 4 * STEPS, frequency=2)
        return compiled(ep.prune_low_magnitude(transfer_net(keras, False, False), schedule))

    half = under_pruning()
    fit(half)
    half.save_weights(tmp_path / "half.h5")
    resumed = under_pruning()
    resumed.load_weights(tmp_path / "half.h5")
    fit(resumed, epochs=4, initial_epoch=2)
    assert all(weight.step == 4 * STEPS for weight in wrapper_masks.masked_weights(resumed))
    assert_exact(ep.strip_pruning(resumed))


def test_a_base_that_stands_still_in_a_loop_without_hooks_is_named():
    keras = flavors.keras_module("tf_keras")
    model = transfer_net(keras, False, False)
    model = ep.prune_low_magnitude(model, ep.ConstantSparsity(0.5, 0, frequency=1))
    loop(model, keras, hooks=())
    with pytest.warns(UserWarning, match="^inside/kernel: no zeros"):
        ep.strip_pruning(model)


def test_a_tf_keras_model_without_an_input_shape():
    keras = flavors.keras_module("tf_keras")

    def unbuilt():
        layers = [keras.layers.Dense(16, name="wide"), keras.layers.Dense(3, activation="softmax")]
        return ep.prune_low_magnitude(keras.Sequential(layers), ep.ConstantSparsity(0.5, 0, frequency=1))

    with pytest.warns(UserWarning, match="its schedule never ran"):
        assert [layer.name for layer in ep.strip_pruning(unbuilt()).layers][0] == "wide"
    with pytest.raises(ValueError, match="not built"):
        ep.sparsity_report(unbuilt())
    with pytest.raises(ValueError, match="'wide' is under pruning and not built: pass the model an input shape"):
        fit(compiled(unbuilt()))
    model = compiled(unbuilt())
    model.build((None, 12))
    fit(model)
    assert_exact(ep.strip_pruning(model), 0.5)
